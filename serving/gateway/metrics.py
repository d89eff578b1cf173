"""The gateway's own Prometheus metrics, shown with the SDK's at ``/metrics``."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

REQUESTS = Counter("slicewise_requests_total", "Requests answered.", ("route", "method", "status"))
LATENCY = Histogram(
    "slicewise_request_seconds", "From the request's head to the answer's end.", ("route",), buckets=SECONDS
)
OPEN = Gauge("slicewise_requests_open", "Requests being read, computed or answered.")
IN_FLIGHT = Gauge("slicewise_backend_in_flight", "Requests at the model server.")
WAITING = Gauge("slicewise_backend_waiting", "Requests waiting for their turn at the model server.")
REJECTED = Counter("slicewise_rejected_total", "Requests refused because too much was going on.", ("reason",))
RETRIES = Counter("slicewise_backend_retries_total", "Requests sent again to the model server.")


class Measured:
    """ASGI middleware that counts and times every HTTP request under its route's template.

    Args:
        app: The application.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        statuses: list[int] = []

        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(int(message["status"]))
            await send(message)

        start = time.perf_counter()
        try:
            with OPEN.track_inprogress():
                await self._app(scope, receive, noting)
        finally:
            # The template and not the path: paths are the caller's words, and would be labels without end.
            route = getattr(scope.get("route"), "path", "none")
            REQUESTS.labels(route, scope["method"], str(statuses[0] if statuses else 500)).inc()
            LATENCY.labels(route).observe(time.perf_counter() - start)
