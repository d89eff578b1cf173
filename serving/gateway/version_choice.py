"""Which version a request is for: by path, query or header, for every HTTP route alike."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from urllib.parse import parse_qsl, urlencode

from fastapi import Request

from serving.gateway.backend import Backend
from serving.gateway.failures import reply
from serving.gateway.metrics import App, Receive, Scope, Send
from serving.status import error_fields, retry_headers, status_of
from slicewise.errors import SliceWiseError

HEADER = b"x-model-version"
QUERY = "version"
PATH = re.compile(r"(/v2/models/[^/]+)/versions/([^/]+)(/.*)?")

CHOSEN: ContextVar[Backend | None] = ContextVar("chosen backend", default=None)


class VersionChoice:
    """ASGI middleware: a request that names a version holds a lease on it until it is answered.

    Args:
        app: The application.
        backend: All versions.
    """

    def __init__(self, app: App, backend: Backend) -> None:
        self._app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        version, scope = _without_version(scope) if scope["type"] == "http" else (None, scope)
        if version is None:
            await self._app(scope, receive, send)
            return
        try:
            async with chosen(self._backend, version):
                await self._app(scope, receive, send)
        except SliceWiseError as error:
            request = Request(scope)
            response = reply(request, status_of(error).http, error_fields(error), retry_headers(error))
            await response(scope, receive, send)


@asynccontextmanager
async def chosen(root: Backend, version: str) -> AsyncIterator[None]:
    """Lease a version and let ``CHOSEN`` name it meanwhile."""
    async with root.lease(version) as backend:
        token = CHOSEN.set(backend)
        try:
            yield
        finally:
            CHOSEN.reset(token)


def _without_version(scope: Scope) -> tuple[str | None, Scope]:
    """The version named, and the request as the routes know it."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    named = [value for name, value in query if name == QUERY]
    named += [value.decode("latin-1") for name, value in scope["headers"] if name == HEADER]
    path = scope["path"]
    if match := PATH.fullmatch(path):
        path = match[1] + (match[3] or "")
        named.insert(0, match[2])
    if not named:
        return None, scope
    rest = urlencode([(name, value) for name, value in query if name != QUERY])
    return named[0], {**scope, "path": path, "raw_path": path.encode(), "query_string": rest.encode("latin-1")}
