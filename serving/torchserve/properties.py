"""TorchServe's ``config.properties``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.ports import LOOPBACK, free_port
from slicewise.config import ServeConfig

MAX_INT = 2**31 - 1
NETTY_THREADS = 2


@dataclass(frozen=True)
class ServerPorts:
    """TorchServe's ports; all on one address."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int

    @classmethod
    def around(cls, inference: int, grpc_inference: int = 0, metrics: int = 0) -> ServerPorts:
        """The given ports, and free ones for the rest; 0 takes a free one for gRPC and metrics too."""
        others: set[int] = set()
        while len(others) < 4:
            others |= {free_port()} - {inference, grpc_inference, metrics}
        management, free_metrics, grpc, grpc_management = others
        return cls(inference, management, metrics or free_metrics, grpc_inference or grpc, grpc_management)


def server_properties(
    ports: ServerPorts,
    archive: Path,
    serve: ServeConfig,
    host: str = LOOPBACK,
    worker_port: int = 9000,
    metrics: Path | None = None,
) -> str:
    """The text of ``config.properties``.

    Nothing can be loaded but the given archive: model control and outside URLs are off, which is why
    the tokens can be off too.

    Args:
        ports: Where to listen.
        archive: The ``.mar``; its folder is the model store.
        serve: Workers and limits.
        host: Address to listen on; loopback unless a container needs otherwise.
        worker_port: First port number in the workers' socket names.
        metrics: ``metrics.yaml``; None leaves TorchServe's own.
    """
    values = _addresses(ports, host, serve) | _settings(serve)
    values |= {"model_store": archive.parent, "load_models": f"{serve.model_name}={archive.name}"}
    values["initial_worker_port"] = worker_port
    if metrics is not None:
        values |= {"metrics_config": metrics, "metrics_mode": "prometheus"}
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _addresses(ports: ServerPorts, host: str, serve: ServeConfig) -> dict[str, object]:
    """Inference and metrics alone may ever be reached from other hosts."""
    grpc_host = host if serve.backend == "torchserve-grpc" else LOOPBACK
    return {
        "inference_address": f"http://{host}:{ports.inference}",
        "management_address": f"http://{LOOPBACK}:{ports.management}",
        "metrics_address": f"http://{host}:{ports.metrics}",
        "grpc_inference_address": grpc_host,
        "grpc_inference_port": ports.grpc_inference,
        "grpc_management_address": LOOPBACK,
        "grpc_management_port": ports.grpc_management,
    }


def _settings(serve: ServeConfig) -> dict[str, object]:
    limit = serve.max_body_bytes
    return {
        "default_workers_per_model": serve.workers,
        "max_request_size": min(limit, MAX_INT),
        # Masks, probabilities and heat maps together are larger than the slices they belong to.
        "max_response_size": min(4 * limit, MAX_INT),
        "default_response_timeout": serve.timeout_s,
        "number_of_netty_threads": NETTY_THREADS,
        "netty_client_threads": NETTY_THREADS,
        "enable_model_api": "false",
        "disable_token_authorization": "true",
        "allowed_urls": "none",
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "enable_metrics_api": "true",
        "model_metrics_auto_detect": "true",
        "disable_system_metrics": "true",
        "decode_input_request": "false",
    }
