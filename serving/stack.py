"""TorchServe and the gateway together, in the foreground: the body of ``slicewise serve``.

Whatever ends this process (a signal, an error, the owner's death, even SIGKILL) ends TorchServe with it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from serving.ports import LOOPBACK, require_free
from serving.state import StackState
from serving.torchserve.archive import build_archive
from serving.torchserve.server import TorchServeProcess
from slicewise.config import ServeConfig
from slicewise.errors import SliceWiseError
from slicewise.files import read_json
from slicewise.process import exit_with_owner

ARCHIVE_SUFFIX = ".mar"
LAST_RESORT_S = 30.0

log = logging.getLogger(__name__)


def serve_stack(
    source: Path,
    config: ServeConfig,
    state_file: Path | None = None,
    owner_pid: int | None = None,
    work: Path | None = None,
    on_ready: Callable[[StackState], None] | None = None,
) -> None:
    """Serve until told to stop; call it from the main thread.

    Args:
        source: A bundle folder or a ``.mar`` file.
        config: Ports, workers and limits.
        state_file: Written once everything answers.
        owner_pid: Stop when this process ends.
        work: Folder for logs and temporary files; None makes one and removes it at the end.
        on_ready: Called once everything answers.

    Raises:
        PortBusyError: A port is taken.
        BundleError: The bundle is damaged.
        ServerError: A server did not start, or ended by itself.
    """
    if owner_pid is not None:
        exit_with_owner(owner_pid, _stop_this_process)
    with _stop_signals(), _work_folder(work) as folder:
        gateway_port = require_free(config.gateway_port, "gateway", "--port")
        grpc_port = require_free(config.gateway_grpc_port, "gateway gRPC", "--grpc-port")
        archive = source if source.suffix == ARCHIVE_SUFFIX else build_archive(source, folder / "store", config)
        backend = TorchServeProcess(archive, config, folder)
        try:
            backend.start()
            _run_gateway(backend, config, (gateway_port, grpc_port), state_file, on_ready)
        finally:
            _ignore_signals()
            backend.stop()
            if state_file is not None:
                state_file.unlink(missing_ok=True)


def _run_gateway(
    backend: TorchServeProcess,
    config: ServeConfig,
    ports: tuple[int, int],
    state_file: Path | None,
    on_ready: Callable[[StackState], None] | None,
) -> None:
    # The SDK takes seconds to import: meanwhile the JVM starts.
    from serving.gateway.backend import Backend
    from serving.gateway.model import SliceWiseModel
    from serving.gateway.server import GatewayServer
    from serving.gateway.warmup import warm_up

    backend.wait_ready()
    url = f"http://{LOOPBACK}:{ports[0]}"

    async def announce() -> None:
        await warm_up(url)
        state = _state(url, ports[1], backend)
        if state_file is not None:
            state.write(state_file)
        if on_ready is not None:
            on_ready(state)

    client = Backend(backend.url, config.model_name, config.timeout_s, config.max_request_mb)
    model = SliceWiseModel(config.model_name, client)
    server = GatewayServer(model, *ports, LOOPBACK, config.max_request_mb, backend.is_alive, announce)
    server.start()


def _state(url: str, grpc_port: int, backend: TorchServeProcess) -> StackState:
    started = psutil.Process().create_time()
    return StackState(os.getpid(), started, url, grpc_port, backend.url, backend.pid, str(backend.work))


@contextlib.contextmanager
def _work_folder(given: Path | None) -> Iterator[Path]:
    """The given folder, or one that is removed unless something went wrong."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="slicewise-serve-"))
    try:
        yield folder
    except SystemExit:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _stop_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into an orderly end; while the gateway runs, its server takes them first."""

    def stop(number: int, _: Any) -> None:
        log.info("stopping on %s", signal.Signals(number).name)
        raise SystemExit(0)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """A second Ctrl-C must not interrupt the stopping."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _stop_this_process() -> None:
    """Ask for an orderly end; make an end of it when that takes too long."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_RESORT_S)
    os._exit(1)


def main(arguments: list[str] | None = None) -> int:
    """``python -m serving.stack``: what ``serving.local.start_detached`` starts."""
    parser = argparse.ArgumentParser(prog="serving.stack")
    parser.add_argument("source", type=Path)
    parser.add_argument("--serve-config", type=Path, required=True, help="ServeConfig as JSON")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--owner", type=int)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = ServeConfig.model_validate(read_json(given.serve_config))
        serve_stack(given.source, config, given.state, given.owner, given.work)
    except SliceWiseError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
