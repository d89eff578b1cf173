"""The body's size limit, for every route alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from serving.gateway.backend import too_large
from serving.status import error_body, status_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyLimit:
    """ASGI middleware that answers 413 by ``Content-Length``, and while reading where there is none.

    Args:
        app: The application.
        max_request_mb: The limit.
    """

    def __init__(self, app: App, max_request_mb: int) -> None:
        self._app = app
        self._mb = max_request_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        limit = self._mb << 20
        if _declared(scope) > limit:
            await self._refuse(send)
            return
        messages, size = [], 0
        more = True
        while more:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > limit:
                await self._refuse(send)
                return
            more = message["type"] == "http.request" and message.get("more_body", False)
        replay = iter(messages)

        async def again() -> MutableMapping[str, Any]:
            message = next(replay, None)
            return await receive() if message is None else message

        await self._app(scope, again, send)

    async def _refuse(self, send: Send) -> None:
        error = too_large(self._mb)
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status_of(error).http, "headers": headers})
        await send({"type": "http.response.body", "body": orjson.dumps(error_body(error))})


def _declared(scope: Scope) -> int:
    """``Content-Length``; 0 where it is missing or no number, as the server counts by itself then."""
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0
