"""TorchServe over gRPC: one channel, deadlines, and retries where nothing can have happened yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import grpc.aio  # type: ignore[import-untyped]
import orjson
from multidict import CIMultiDict

from serving.codecs.envelope import HEADERS, Opened, seal_headers, unseal
from serving.gateway.backend import RawAnswer, too_large
from serving.gateway.retry import TIMES, Retries
from serving.gateway.torchserve_http import NO_WORKER, WORKER_DIED, deadline_passed, unavailable
from serving.gateway.torchserve_messages import PREDICTIONS, PredictionResponse, PredictionsRequest
from serving.gateway.wire_backend import WireBackend
from serving.status import BackendError, BusyError, DeadlineError, error_from
from slicewise.config import ServeConfig
from slicewise.errors import InputError

NEVER_SENT = "failed to connect"
OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # A TorchServe that comes back is to be found again at once, not after gRPC's two minutes.
    ("grpc.max_reconnect_backoff_ms", 1000),
)

log = logging.getLogger(__name__)


class GrpcBackend(WireBackend):
    """TorchServe, reached by its own gRPC.

    Args:
        target: ``host:port`` of its gRPC inference service.
        config: The model's name there, and the limits.
    """

    def __init__(self, target: str, config: ServeConfig) -> None:
        super().__init__(config)
        self._target = target
        self._channel: Any = None

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    def _call(self, request: Any, timeout_s: float) -> Any:
        """One call; the channel is opened by the first, as it belongs to the event loop that is running then."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=OPTIONS)
        call = self._channel.unary_unary(
            PREDICTIONS,
            request_serializer=PredictionsRequest.SerializeToString,
            response_deserializer=PredictionResponse.FromString,
        )
        return call(request, timeout=timeout_s)

    async def _send(self, body: bytes, headers: Mapping[str, str], deadline_s: float) -> RawAnswer:
        content = {"body": body, HEADERS: seal_headers(headers)}
        request = PredictionsRequest(model_name=self.config.model_name, input=content)
        end = time.monotonic() + deadline_s
        retries = Retries()
        while True:
            try:
                response = await self._call(request, max(end - time.monotonic(), 0.001))
                return _delivered(unseal(response.prediction))
            except grpc.aio.AioRpcError as error:
                reason = self._meaning(error, deadline_s)
                if isinstance(reason, DeadlineError | InputError) or not (most := _tries(error)):
                    raise reason from error
                await retries.again(reason, most)
            except ValueError as error:
                log.warning("backend: %s", error)
                raise unavailable() from error

    def _meaning(self, error: Any, deadline_s: float) -> InputError | BackendError:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return deadline_passed(deadline_s)
        # TorchServe gives a request whose worker died the same code as a message over the limit.
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and WORKER_DIED not in details:
            return too_large(self.config.max_request_mb)
        # TorchServe's own words name classes and folders: they go to the log only.
        log.warning("backend: %s: %.300s", code.name, details)
        if NO_WORKER in details:
            return BusyError("too many requests wait at the model server", "try again in a moment")
        return unavailable()


def _tries(error: Any) -> int:
    """How often it may be sent again: as with HTTP."""
    details = error.details() or ""
    if WORKER_DIED in details:
        return 1
    never_arrived = error.code() is grpc.StatusCode.UNAVAILABLE and NEVER_SENT in details
    return TIMES if never_arrived or NO_WORKER in details else 0


def _delivered(answer: Opened) -> RawAnswer:
    if answer.status == HTTPStatus.OK:
        return RawAnswer(answer.body, CIMultiDict(answer.headers))
    raise error_from(orjson.loads(answer.body).get("error"))
