"""The gateway alone, as a container runs it: ``python -m serving.gateway --predictor_host HOST``.

KServe adds arguments of its own to a transformer's (``--model_name``, ``--predictor_host``, ``--http_port`` and
protocol flags), sometimes twice: unknown words are skipped and the last of a repeated flag counts.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from serving.ports import LOOPBACK
from slicewise.config import ServeConfig
from slicewise.errors import SliceWiseError

log = logging.getLogger(__name__)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The arguments, with defaults from the environment."""
    defaults = ServeConfig()
    environment = os.environ
    parser = argparse.ArgumentParser(prog="python -m serving.gateway", allow_abbrev=False)
    parser.add_argument("--model_name", default=environment.get("SLICEWISE_MODEL_NAME", defaults.model_name))
    parser.add_argument("--predictor_host", default=environment.get("SLICEWISE_PREDICTOR", f"{LOOPBACK}:8085"))
    parser.add_argument("--http_port", type=int, default=8080)
    parser.add_argument("--grpc_port", type=int, default=8081)
    parser.add_argument("--host", default=environment.get("SLICEWISE_HOST", LOOPBACK))
    for name in ("max_request_mb", "timeout_s"):
        preset = environment.get(f"SLICEWISE_{name.upper()}", getattr(defaults, name))
        parser.add_argument(f"--{name}", type=int, default=int(preset))
    known, skipped = parser.parse_known_args(arguments)
    if skipped:
        log.info("arguments skipped: %s", " ".join(skipped))
    return known


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    given = parse(arguments)
    from serving.gateway.backend import Backend
    from serving.gateway.model import SliceWiseModel
    from serving.gateway.server import GatewayServer

    host = given.predictor_host
    url = host if "://" in host else f"http://{host}"
    backend = Backend(url, given.model_name, given.timeout_s, given.max_request_mb)
    model = SliceWiseModel(given.model_name, backend)
    try:
        GatewayServer(model, given.http_port, given.grpc_port, given.host, given.max_request_mb).start()
    except SliceWiseError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
