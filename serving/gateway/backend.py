"""The gateway's one way to TorchServe: pooled HTTP with a deadline."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import orjson

from serving.codecs import v2
from serving.status import BackendError, DeadlineError, error_from
from slicewise.errors import InputError, SliceWiseError, TooLargeError

PROBE_SIDE = 32
PROBE_FRESH_S = 2.0
PROBE_DEADLINE_S = 10.0
CONNECT_S = 5.0
MAX_CONNECTIONS = 64

log = logging.getLogger(__name__)


class Backend:
    """TorchServe, as the gateway sees it.

    Args:
        url: Its inference address.
        model_name: The model's name there.
        timeout_s: Deadline of one request.
        max_request_mb: The limit to name when it refuses a body.
    """

    def __init__(self, url: str, model_name: str, timeout_s: float, max_request_mb: int) -> None:
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
        self._client = httpx.AsyncClient(base_url=url, limits=limits, timeout=timeout, trust_env=False)
        self._path = f"/predictions/{model_name}"
        self._timeout_s = timeout_s
        self._max_request_mb = max_request_mb
        self._probed = (0.0, False)

    async def infer(
        self, tensors: Mapping[str, Any], parameters: Mapping[str, Any], wanted: tuple[str, ...] = ()
    ) -> v2.Message:
        """One V2 request in binary.

        Args:
            tensors: The inputs.
            parameters: The request's parameters.
            wanted: Outputs to return; all that were computed when empty.

        Raises:
            InputError: The handler refused it.
            BackendError: No answer, or none in time.
        """
        body, length = v2.write(v2.Message(tensors, parameters, wanted=wanted), "inputs", binary=True)
        headers = {v2.LENGTH_HEADER: str(length), "content-type": v2.BINARY}
        response = await self.forward(body, headers)
        return v2.parse(response.content, response.headers.get(v2.LENGTH_HEADER), "outputs")

    async def forward(
        self, body: bytes, headers: Mapping[str, str], timeout_s: float | None = None
    ) -> httpx.Response:
        """Send a body as it is.

        Raises:
            InputError: The handler refused it.
            BackendError: No answer, or none in time.
        """
        deadline = timeout_s or self._timeout_s
        try:
            response = await self._client.post(self._path, content=body, headers=dict(headers), timeout=deadline)
        except httpx.TimeoutException as error:
            raise DeadlineError(
                f"the model server took longer than {deadline:.0f} s", "send fewer or smaller slices, or try later"
            ) from error
        except httpx.HTTPError as error:
            log.warning("backend: %s", error)
            raise BackendError("the model server cannot be reached", "try again in a few seconds") from error
        if response.is_success:
            return response
        raise self._error(response)

    async def describe(self) -> dict[str, Any]:
        """What the handler says of its model."""
        response = await self.forward(b'{"describe": true}', {"content-type": "application/json"})
        described: dict[str, Any] = orjson.loads(response.content)
        return described

    async def healthy(self) -> bool:
        """Whether the model answered a real, tiny inference within the last moments."""
        at, outcome = self._probed
        if time.monotonic() - at < PROBE_FRESH_S:
            return outcome
        ramp = np.arange(PROBE_SIDE**2, dtype=np.float32).reshape(1, 1, PROBE_SIDE, PROBE_SIDE)
        request = v2.Message({"image": ramp}, {"tasks": "classify"})
        body, length = v2.write(request, "inputs", binary=True)
        headers = {v2.LENGTH_HEADER: str(length), "content-type": v2.BINARY}
        try:
            await self.forward(body, headers, PROBE_DEADLINE_S)
            outcome = True
        except SliceWiseError as error:
            log.warning("not healthy: %s", error)
            outcome = False
        self._probed = (time.monotonic(), outcome)
        return outcome

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _error(self, response: httpx.Response) -> InputError | BackendError:
        if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE and not response.content:
            return too_large(self._max_request_mb)
        try:
            fields = orjson.loads(response.content).get("error")
        except (orjson.JSONDecodeError, AttributeError):
            fields = None
        if isinstance(fields, dict):
            return error_from(fields)
        # TorchServe's own answers name classes and folders: they go to the log only.
        log.warning("backend: status %d: %.300s", response.status_code, response.text)
        return BackendError("the model server cannot answer now", "try again in a few seconds")


def too_large(max_request_mb: int) -> TooLargeError:
    """The refusal of a body over the limit."""
    return TooLargeError(f"the body is larger than {max_request_mb} MB", "send fewer slices or smaller pictures")
