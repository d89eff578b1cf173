"""The gateway alone, as a container runs it: ``python -m serving.gateway --predictor_host HOST``.

KServe adds arguments of its own to a transformer's (``--model_name``, ``--predictor_host``, ``--http_port`` and
protocol flags), sometimes twice: unknown words are skipped and the last of a repeated flag counts.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from urllib.parse import urlsplit

from serving.gateway.backend import Backend
from serving.ports import LOOPBACK
from slicewise.config import ServeConfig
from slicewise.errors import SliceWiseError

KINDS = ("torchserve-http", "torchserve-grpc")

log = logging.getLogger(__name__)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The arguments, with defaults from the environment."""
    defaults = ServeConfig()
    environment = os.environ
    parser = argparse.ArgumentParser(prog="python -m serving.gateway", allow_abbrev=False)
    parser.add_argument("--model_name", default=environment.get("SLICEWISE_MODEL_NAME", defaults.model_name))
    parser.add_argument("--predictor_host", default=environment.get("SLICEWISE_PREDICTOR", f"{LOOPBACK}:8085"))
    parser.add_argument("--backend", default=environment.get("SLICEWISE_BACKEND", "torchserve-http"), choices=KINDS)
    parser.add_argument(
        "--predictor_grpc_port", type=int, default=int(environment.get("SLICEWISE_TORCHSERVE_GRPC_PORT", 7070))
    )
    parser.add_argument("--http_port", type=int, default=8080)
    parser.add_argument("--grpc_port", type=int, default=8081)
    parser.add_argument("--host", default=environment.get("SLICEWISE_HOST", LOOPBACK))
    for name in ("max_request_mb", "timeout_s"):
        preset = environment.get(f"SLICEWISE_{name.upper()}", getattr(defaults, name))
        parser.add_argument(f"--{name}", type=int, default=int(preset))
    # The words of KServe's flags: a value, so that the environment can say it too.
    parser.add_argument("--ui", type=_flag, default=_flag(environment.get("SLICEWISE_UI", "false")))
    parser.add_argument("--ui_runs", default=environment.get("SLICEWISE_UI_RUNS", defaults.ui_runs))
    known, skipped = parser.parse_known_args(arguments)
    if skipped:
        log.info("arguments skipped: %s", " ".join(skipped))
    return known


def _flag(word: str) -> bool:
    return word.strip().lower() in ("true", "1", "yes")


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    given = parse(arguments)
    from serving.gateway.model import SliceWiseModel
    from serving.gateway.server import GatewayServer
    from serving.ui.runs import RunFolder

    model = SliceWiseModel(given.model_name, connect(given))
    runs = RunFolder.chosen(given.ui, given.ui_runs)
    ports = (given.http_port, given.grpc_port)
    try:
        GatewayServer(model, *ports, given.host, given.max_request_mb, ui_runs=runs).start()
    except SliceWiseError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


def connect(given: argparse.Namespace) -> Backend:
    """The way to the predictor: HTTP, or gRPC on a port of its own at the same host."""
    fields = {name: getattr(given, name) for name in ("model_name", "max_request_mb", "timeout_s", "backend")}
    config = ServeConfig.model_validate(fields)
    url = given.predictor_host if "://" in given.predictor_host else f"http://{given.predictor_host}"
    if given.backend == "torchserve-grpc":
        from serving.gateway.torchserve_grpc import GrpcBackend

        return GrpcBackend(f"{urlsplit(url).hostname}:{given.predictor_grpc_port}", config)
    from serving.gateway.torchserve_http import HttpBackend

    return HttpBackend(url, config)


if __name__ == "__main__":
    sys.exit(main())
