"""Where the server is, and how long to wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from serving.status import DeadlineError
from slicewise.errors import UsageError

CONNECT_S = 10.0
# The server closes idle connections after 5 s; one that is older here may be closed while it is taken up.
KEEP_ALIVE_S = 3.0


@dataclass(frozen=True)
class ClientSettings:
    """How to reach a server.

    Attributes:
        url: Of the gateway, e.g. ``http://127.0.0.1:8080``.
        grpc_target: ``host:port`` of its gRPC; where it is given, ``predict_slices`` goes there.
        model: The served model's name.
        timeout_s: Of one answer.
        patience_s: How long, in all, to wait for a server that says it is busy.
        headers: Sent along, e.g. ``Authorization``.
        poll_s: How often to look at a job.
    """

    url: str
    grpc_target: str | None = None
    model: str = "slicewise"
    timeout_s: float = 120.0
    patience_s: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)
    poll_s: float = 0.5

    def __post_init__(self) -> None:
        require_url(self.url)

    @property
    def timeout(self) -> httpx.Timeout:
        """For the HTTP client."""
        return httpx.Timeout(self.timeout_s, connect=min(CONNECT_S, self.timeout_s))

    @property
    def limits(self) -> httpx.Limits:
        """For the HTTP client's pool."""
        return httpx.Limits(keepalive_expiry=KEEP_ALIVE_S)

    def too_slow(self, path: str) -> DeadlineError:
        """The error of an answer that did not come in time."""
        return DeadlineError(f"{path} gave no answer within {self.timeout_s:g} s", "raise timeout_s, or send less")


def require_url(url: str) -> None:
    """Refuse what is no address of an HTTP server.

    Raises:
        UsageError: Names it.
    """
    try:
        given = httpx.URL(url)
    except httpx.InvalidURL:
        given = httpx.URL("")
    if given.scheme not in ("http", "https") or not given.host:
        raise UsageError(f"{url!r} is no address of a server", "give e.g. http://127.0.0.1:8080")
