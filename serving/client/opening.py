"""From a URL and the name of a protocol to the model behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from serving.client.settings import require_url
from serving.client.sync_client import Client

if TYPE_CHECKING:
    from slicewise.inference.predict.model import PredictModel

LONG_PATIENCE_S = 600.0


def open_model(url: str, protocol: str, grpc_port: int) -> PredictModel:
    """The model of a running server.

    A run over a folder has time: it waits long for a busy server.

    Args:
        url: The gateway.
        protocol: ``v2-http``, ``v2-grpc`` or ``rest``.
        grpc_port: Where gRPC is on the same host, for ``v2-grpc``.

    Raises:
        UsageError: The URL is none.
        BackendError: The server is away.
    """
    from serving.client.remote_model import RemoteModel
    from serving.client.rest_model import RestModel

    require_url(url)
    target = f"{httpx.URL(url).host}:{grpc_port}" if protocol == "v2-grpc" else None
    client = Client(url, grpc_target=target, patience_s=LONG_PATIENCE_S)
    return RestModel(client) if protocol == "rest" else RemoteModel(client)
