"""The model server and the gateway together, in the foreground: the body of ``slicewise serve``.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from serving.ports import LOOPBACK, require_free
from serving.state import StackState
from serving.supervise import Supervisor
from serving.torchserve.server import TorchServeProcess
from serving.ui.runs import RunFolder
from serving.versions.folder import is_models_folder
from serving.versions.start import start_server
from slicewise.config import ServeConfig
from slicewise.errors import SliceWiseError
from slicewise.files import read_json
from slicewise.process import exit_with_owner

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
        source: A bundle folder, a ``.mar`` file, or a models folder with one bundle for each version.
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
        ports = (
            require_free(config.gateway_port, "gateway", "--port"),
            require_free(config.gateway_grpc_port, "gateway gRPC", "--grpc-port"),
        )
        try:
            serve = serve_folder if is_models_folder(source) else serve_bundle
            serve(source, config, folder, Announcement(ports, folder, state_file, on_ready))
        finally:
            if state_file is not None:
                state_file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Announcement:
    """What is told, and to whom, once everything answers.

    Attributes:
        ports: The gateway's HTTP and gRPC.
        work: Where the logs are.
        state_file: Written then.
        on_ready: Called then.
    """

    ports: tuple[int, int]
    work: Path
    state_file: Path | None
    on_ready: Callable[[StackState], None] | None

    async def tell(self, process: TorchServeProcess | None = None) -> None:
        """Try the whole way once, then tell."""
        from serving.gateway.warmup import warm_up

        url = f"http://{LOOPBACK}:{self.ports[0]}"
        await warm_up(url)
        where = ("", 0) if process is None else (process.url, process.pid)
        started = psutil.Process().create_time()
        state = StackState(os.getpid(), started, url, self.ports[1], *where, str(self.work))
        if self.state_file is not None:
            state.write(self.state_file)
        if self.on_ready is not None:
            self.on_ready(state)


def serve_bundle(source: Path, config: ServeConfig, work: Path, announcement: Announcement) -> None:
    """One bundle behind the gateway; a TorchServe that ends by itself is started again, a few times.

    Raises:
        BundleError: The bundle is damaged.
        ServerError: A server did not start, or ended by itself.
    """
    running = start_server(source, config, work)
    try:
        # The SDK takes seconds to import: meanwhile the JVM starts.
        from serving.gateway.model import SliceWiseModel
        from serving.gateway.server import GatewayServer

        running.wait_ready()
        supervisor = None if running.process is None else Supervisor(running.process)
        model = SliceWiseModel(config.model_name, running.connect())
        GatewayServer(
            model,
            *announcement.ports,
            max_request_mb=config.max_request_mb,
            alive=running.alive if supervisor is None else supervisor.hopeful,
            on_ready=lambda: announcement.tell(running.process),
            background=None if supervisor is None else supervisor.run,
            ui_runs=RunFolder.chosen(config.ui, config.ui_runs),
        ).start()
    finally:
        _ignore_signals()
        running.stop()


def serve_folder(source: Path, config: ServeConfig, work: Path, announcement: Announcement) -> None:
    """All versions of a models folder behind one gateway, followed as the folder changes.

    Raises:
        ServerError: No version can be served.
    """
    from serving.gateway.model import SliceWiseModel
    from serving.gateway.server import GatewayServer
    from serving.gateway.versions import VersionTable
    from serving.versions.watch import FolderWatcher

    table = VersionTable()
    watcher = FolderWatcher(source, config, work, table)

    async def announce() -> None:
        await watcher.wait_served()
        await announcement.tell()

    GatewayServer(
        SliceWiseModel(config.model_name, table),
        *announcement.ports,
        max_request_mb=config.max_request_mb,
        on_ready=announce,
        background=watcher.run,
        ui_runs=RunFolder.chosen(config.ui, config.ui_runs),
    ).start()


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
