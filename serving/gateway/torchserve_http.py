"""TorchServe over HTTP: pooled connections, deadlines, and retries where nothing can have happened yet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import NoReturn

import httpx
import orjson

from serving.gateway.backend import RawAnswer, too_large
from serving.gateway.retry import Retries
from serving.gateway.wire_backend import WireBackend
from serving.status import BackendError, BusyError, DeadlineError, error_from
from slicewise.config import ServeConfig

CONNECT_S = 5.0
SPARE_CONNECTIONS = 4
# TorchServe says this both when its queue is full and when no worker is left; the health tells them apart.
NO_WORKER = "has no worker to serve inference request"
# The worker that had the request died, perhaps by another one of its batch. Predicting changes nothing, so it may be
# asked once more; and only once, as the request itself may be what killed it.
WORKER_DIED = "Worker died"

log = logging.getLogger(__name__)


class HttpBackend(WireBackend):
    """TorchServe, reached by HTTP.

    Args:
        url: Its inference address.
        config: The model's name there, and the limits.
    """

    def __init__(self, url: str, config: ServeConfig) -> None:
        super().__init__(config)
        most = config.max_in_flight + SPARE_CONNECTIONS
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        self._client = httpx.AsyncClient(base_url=url, limits=limits, trust_env=False)
        self._path = f"/predictions/{config.model_name}"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _send(self, body: bytes, headers: Mapping[str, str], deadline_s: float) -> RawAnswer:
        try:
            async with asyncio.timeout(deadline_s):
                return await self._persist(body, headers)
        except TimeoutError as error:
            raise deadline_passed(deadline_s) from error

    async def _persist(self, body: bytes, headers: Mapping[str, str]) -> RawAnswer:
        """Send until it was taken; a request that a handler has begun to answer is never sent again."""
        retries = Retries()
        while True:
            try:
                response = await self._client.post(
                    self._path, content=body, headers=dict(headers), timeout=self._wait
                )
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.WriteError) as error:
                # Never arrived, or not in full: the handler cannot have seen it.
                await retries.again(BackendError("the model server cannot be reached", "try again in a few seconds"))
                log.info("sent again after %s", type(error).__name__)
                continue
            except httpx.HTTPError as error:
                log.warning("backend: %s: %s", type(error).__name__, error)
                raise BackendError("the model server broke off", "try again in a few seconds") from error
            if response.is_success:
                return RawAnswer(response.content, response.headers)
            if response.is_server_error and WORKER_DIED in response.text:
                await retries.again(unavailable(), most=1)
            elif response.status_code == httpx.codes.SERVICE_UNAVAILABLE and NO_WORKER in response.text:
                await retries.again(await self._refusal())
            else:
                self._fail(response)

    @property
    def _wait(self) -> httpx.Timeout:
        """Only connecting has a limit of its own; the deadline is over the whole."""
        return httpx.Timeout(None, connect=CONNECT_S)

    async def _refusal(self) -> BackendError:
        """Why TorchServe took no request: too many wait there, or no worker runs."""
        try:
            ping = await self._client.get("/ping", timeout=CONNECT_S)
            if ping.is_success and ping.json().get("status") == "Healthy":
                return BusyError("too many requests wait at the model server", "try again in a moment")
        except (httpx.HTTPError, ValueError, AttributeError):
            log.info("the model server does not answer /ping")
        return unavailable()

    def _fail(self, response: httpx.Response) -> NoReturn:
        if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE and not response.content:
            raise too_large(self.config.max_request_mb)
        try:
            fields = orjson.loads(response.content).get("error")
        except (orjson.JSONDecodeError, AttributeError):
            fields = None
        if isinstance(fields, dict):
            raise error_from(fields)
        # TorchServe's own answers name classes and folders: they go to the log only.
        log.warning("backend: status %d: %.300s", response.status_code, response.text)
        raise unavailable()


def deadline_passed(deadline_s: float) -> DeadlineError:
    """The refusal when time ran out."""
    cure = "send fewer or smaller slices, or try later"
    return DeadlineError(f"the model server took longer than {deadline_s:.0f} s", cure)


def unavailable() -> BackendError:
    """The refusal when the model server cannot answer."""
    return BackendError("the model server cannot answer now", "try again in a few seconds")
