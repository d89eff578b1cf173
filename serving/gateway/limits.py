"""Limits on bodies, for every route alike: of one, of all together, and of the time that one may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

import orjson

from serving.gateway.backend import too_large
from serving.gateway.metrics import REJECTED, App, Receive, Scope, Send
from serving.status import BusyError, SlowBodyError, error_body, retry_headers, status_of
from slicewise.errors import SliceWiseError, TooLargeError

# Together, all bodies being read or answered may take as much as so many of the largest.
LARGEST_AT_ONCE = 8
IDLE_S = 30.0
# Of a body over the limit is still read: as many times the largest, until the client pauses for so long.
DISCARDED = 4
PAUSE_S = 1.0


class BodyLimit:
    """ASGI middleware that reads the body: 413 by ``Content-Length``, and while reading where there is none.

    Args:
        app: The application.
        max_request_mb: The largest body.
        idle_s: Longest silence of a client in the middle of its body.
    """

    def __init__(self, app: App, max_request_mb: int, idle_s: float = IDLE_S) -> None:
        self._app = app
        self._mb = max_request_mb
        self._idle_s = idle_s
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        messages: list[MutableMapping[str, Any]] = []
        try:
            await self._handle(scope, receive, send, messages)
        finally:
            self._held -= sum(len(message.get("body", b"")) for message in messages)

    async def _handle(
        self, scope: Scope, receive: Receive, send: Send, messages: list[MutableMapping[str, Any]]
    ) -> None:
        try:
            if _declared(scope) > self._mb << 20:
                raise too_large(self._mb)
            await self._read(receive, messages)
        except SliceWiseError as error:
            await self._refuse(error, receive, send)
            return
        replay = iter(tuple(messages))

        async def again() -> MutableMapping[str, Any]:
            message = next(replay, None)
            return await receive() if message is None else message

        await self._app(scope, again, send)

    async def _refuse(self, error: SliceWiseError, receive: Receive, send: Send) -> None:
        content = orjson.dumps(error_body(error))
        headers = {"content-type": "application/json", "content-length": str(len(content)), "connection": "close"}
        raw = [(name.lower().encode(), value.encode()) for name, value in (headers | retry_headers(error)).items()]
        await send({"type": "http.response.start", "status": status_of(error).http, "headers": raw})
        unread = isinstance(error, TooLargeError)
        await send({"type": "http.response.body", "body": content, "more_body": unread})
        if unread:
            await self._discard(receive)
            await send({"type": "http.response.body"})

    async def _discard(self, receive: Receive) -> None:
        """Read on, and keep nothing: closing on unread bytes resets the connection, and the answer may be lost."""
        end, left, more = time.monotonic() + self._idle_s, DISCARDED * self._mb << 20, True
        while more and left > 0:
            try:
                message = await asyncio.wait_for(receive(), min(max(end - time.monotonic(), 0.001), PAUSE_S))
            except TimeoutError:
                return
            left -= len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)

    async def _read(self, receive: Receive, messages: list[MutableMapping[str, Any]]) -> None:
        """The whole body, message by message; what is held is counted at once."""
        size, more = 0, True
        while more:
            try:
                async with asyncio.timeout(self._idle_s):
                    message = await receive()
            except TimeoutError as error:
                cure = "send the whole body without pauses"
                raise SlowBodyError(f"no byte of the body came for {self._idle_s:.0f} s", cure) from error
            messages.append(message)
            length = len(message.get("body", b""))
            size += length
            self._held += length
            if size > self._mb << 20:
                raise too_large(self._mb)
            if self._held > LARGEST_AT_ONCE * self._mb << 20:
                REJECTED.labels("bodies").inc()
                raise BusyError("too many bytes of requests are held already", "try again in a moment")
            more = message["type"] == "http.request" and message.get("more_body", False)


def _declared(scope: Scope) -> int:
    """``Content-Length``; 0 where it is missing or no number, as the server counts by itself then."""
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0
