"""TorchServe alone, as a container runs it: ``python -m serving.torchserve /mnt/models/slicewise.mar``.

The process stays the JVM's parent: a signal to it stops everything, and when the JVM ends so does it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from serving.ports import LOOPBACK
from serving.torchserve.archive import build_archive
from serving.torchserve.server import TorchServeProcess
from slicewise.config import ServeConfig, validate
from slicewise.errors import SliceWiseError

WATCH_S = 1.0

SETTINGS = (
    *("workers", "batch_size", "max_batch_delay_ms", "max_request_mb", "max_study_voxels", "timeout_s"),
    *("model_name", "backend", "torchserve_grpc_port", "torchserve_metrics_port"),
)
# How the network is run; what is not given is as the archive says.
ENGINE_SETTINGS = ("engine", "dtype", "channels_last", "amp", "compile", "cuda_graphs")

log = logging.getLogger(__name__)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The arguments; whatever else KServe adds is skipped."""
    parser = argparse.ArgumentParser(prog="python -m serving.torchserve", allow_abbrev=False)
    parser.add_argument("source", type=Path, help="a .mar file, a bundle folder, or a folder with one of them")
    parser.add_argument("--host", default=os.environ.get("SLICEWISE_HOST", LOOPBACK))
    parser.add_argument("--port", type=int, default=8085)
    parser.add_argument("--work", type=Path, default=Path(os.environ.get("SLICEWISE_WORK", "/tmp/torchserve")))
    for name in (*SETTINGS, *ENGINE_SETTINGS):
        preset = os.environ.get(f"SLICEWISE_{name.upper()}")
        parser.add_argument(f"--{name}", default=preset)
    return parser.parse_known_args(arguments)[0]


def settings(given: argparse.Namespace) -> ServeConfig:
    """The arguments as configuration."""
    fields: dict[str, object] = {name: value for name in SETTINGS if (value := getattr(given, name))}
    engine = {name: value for name in ENGINE_SETTINGS if (value := getattr(given, name))}
    if engine:
        fields["predictor"] = engine
    return validate(ServeConfig, fields | {"torchserve_port": given.port})


def find_archive(source: Path, work: Path, serve: ServeConfig) -> Path:
    """The archive given or lying in the folder given, else one made of the bundle there."""
    if source.suffix == ".mar":
        return source
    found = sorted(source.glob("**/*.mar"))
    return found[0] if found else build_archive(source, work / "store", serve)


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    given = parse(arguments)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    try:
        serve = settings(given)
        server = TorchServeProcess(find_archive(given.source, given.work, serve), serve, given.work, given.host)
        try:
            server.start()
            while server.is_alive() and not told.wait(WATCH_S):
                pass
        finally:
            server.stop()
    except SliceWiseError as error:
        log.error("%s", error)
        return error.exit_code
    return 0 if told.is_set() else 1


if __name__ == "__main__":
    sys.exit(main())
