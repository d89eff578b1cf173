"""Channels to the standard V2 gRPC service, sync and async."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from serving.client.grpc_messages import OPTIONS, Stub, from_response, is_busy, refusal, to_request
from serving.client.refusals import Patience
from serving.client.settings import ClientSettings
from serving.codecs.v2 import Message


class GrpcChannel:
    """One channel; threads may share it.

    Args:
        settings: Target, model, headers and deadlines.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._channel = grpc.insecure_channel(settings.grpc_target, options=OPTIONS)
        self._stub = Stub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def infer(self, message: Message) -> Message:
        """Ask, and wait for the answer; a busy server is asked again.

        Raises:
            InputError: The server refused the request.
            BackendError: It is away, or stayed busy.
        """
        request, patience = to_request(self._settings.model, message), Patience(self._settings.patience_s)
        while True:
            try:
                return from_response(self._stub.ModelInfer(request, **_sent_along(self._settings)))
            except grpc.RpcError as error:
                time.sleep(_pause_s(error, patience, self._settings))


class AsyncGrpcChannel:
    """As ``GrpcChannel``, for the event loop in which it is made.

    Args:
        settings: Target, model, headers and deadlines.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._channel = grpc.aio.insecure_channel(settings.grpc_target, options=OPTIONS)
        self._stub = Stub(self._channel)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def infer(self, message: Message) -> Message:
        """See ``GrpcChannel``."""
        request, patience = to_request(self._settings.model, message), Patience(self._settings.patience_s)
        while True:
            try:
                return from_response(await self._stub.ModelInfer(request, **_sent_along(self._settings)))
            except grpc.aio.AioRpcError as error:
                await asyncio.sleep(_pause_s(error, patience, self._settings))


def _sent_along(settings: ClientSettings) -> dict[str, Any]:
    metadata = tuple((name.lower(), value) for name, value in settings.headers.items())
    return {"timeout": settings.timeout_s, "metadata": metadata}


def _pause_s(error: Any, patience: Patience, settings: ClientSettings) -> float:
    """How long to wait before asking again.

    Raises:
        InputError: Waiting would not help: the request is wrong.
        BackendError: There is no time left, or the server is away.
    """
    reason = refusal(error, str(settings.grpc_target))
    pause_s = patience.pause_s(None) if is_busy(reason, error) else None
    if pause_s is None:
        raise reason from error
    return pause_s
