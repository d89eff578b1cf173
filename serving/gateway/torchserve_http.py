"""TorchServe over HTTP: pooled connections, deadlines, and retries where nothing can have happened yet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from serving.gateway.backend import RawAnswer, too_large
from serving.gateway.retry import Retries
from serving.gateway.wire_backend import WireBackend
from serving.status import BackendError, BusyError, DeadlineError, error_from
from slicewise.config import ServeConfig

CONNECT_S = 5.0
SPARE_CONNECTIONS = 4
# So much of an answer is taken in before reading pauses: masks of a batch are megabytes, and all is kept anyway.
READ_AHEAD = 4 << 20
# Only what the request names is sent: TorchServe hands every header to its worker, one by one.
UNSENT = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
# TorchServe says this both when its queue is full and when no worker is left; the health tells them apart.
NO_WORKER = "has no worker to serve inference request"
# The worker that had the request died, perhaps by another one of its batch. Predicting changes nothing, so it may be
# asked once more; and only once, as the request itself may be what killed it.
WORKER_DIED = "Worker died"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Response:
    """An answer of TorchServe, whatever it says."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        return self.status // 100 == 2

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


class _Body(Payload):
    """A body in one piece, which notes whether the connection took it; aiohttp's own warns of large ones."""

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self._size = len(value)
        self.taken = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        # Not drained: it is in memory anyway, and a failure here means that nothing of it went out.
        await writer.write(self._value, drain=False)  # type: ignore[call-arg]
        self.taken = True


class HttpBackend(WireBackend):
    """TorchServe, reached by HTTP.

    Args:
        url: Its inference address.
        config: The model's name there, and the limits.
    """

    def __init__(self, url: str, config: ServeConfig) -> None:
        super().__init__(config)
        self._url = url.rstrip("/")
        self._predictions = f"{self._url}/predictions/{config.model_name}"
        self._opened: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()

    def _session(self) -> aiohttp.ClientSession:
        """The connections; opened by the first request, as they belong to the event loop that is running then."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.config.max_in_flight + SPARE_CONNECTIONS),
                # Only connecting has a limit of its own; the deadline is over the whole.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=UNSENT,
                read_bufsize=READ_AHEAD,
            )
        return self._opened

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
            sent = _Body(body)
            try:
                response = await self._ask("POST", self._predictions, data=sent, headers=headers)
            except aiohttp.ClientError as error:
                if sent.taken:
                    log.warning("backend: %s: %s", type(error).__name__, error)
                    raise BackendError("the model server broke off", "try again in a few seconds") from error
                # Never arrived: the handler cannot have seen it.
                await retries.again(BackendError("the model server cannot be reached", "try again in a few seconds"))
                log.info("sent again after %s", type(error).__name__)
                continue
            if response.is_success:
                return RawAnswer(response.content, response.headers)
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR and WORKER_DIED in response.text:
                await retries.again(unavailable(), most=1)
            elif response.status == HTTPStatus.SERVICE_UNAVAILABLE and NO_WORKER in response.text:
                await retries.again(await self._refusal())
            else:
                self._fail(response)

    async def _ask(self, method: str, url: str, **more: Any) -> _Response:
        async with self._session().request(method, url, allow_redirects=False, **more) as response:
            return _Response(response.status, response.headers, await response.read())

    async def _refusal(self) -> BackendError:
        """Why TorchServe took no request: too many wait there, or no worker runs."""
        try:
            async with asyncio.timeout(CONNECT_S):
                ping = await self._ask("GET", f"{self._url}/ping")
            if ping.is_success and orjson.loads(ping.content).get("status") == "Healthy":
                return BusyError("too many requests wait at the model server", "try again in a moment")
        except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError):
            log.info("the model server does not answer /ping")
        return unavailable()

    def _fail(self, response: _Response) -> NoReturn:
        if response.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and not response.content:
            raise too_large(self.config.max_request_mb)
        try:
            fields = orjson.loads(response.content).get("error")
        except (orjson.JSONDecodeError, AttributeError):
            fields = None
        if isinstance(fields, dict):
            raise error_from(fields)
        # TorchServe's own answers name classes and folders: they go to the log only.
        log.warning("backend: status %d: %.300s", response.status, response.text)
        raise unavailable()


def deadline_passed(deadline_s: float) -> DeadlineError:
    """The refusal when time ran out."""
    cure = "send fewer or smaller slices, or try later"
    return DeadlineError(f"the model server took longer than {deadline_s:.0f} s", cure)


def unavailable() -> BackendError:
    """The refusal when the model server cannot answer."""
    return BackendError("the model server cannot answer now", "try again in a few seconds")
