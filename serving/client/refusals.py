"""The server's refusals as SliceWise's errors, and how long to wait before asking again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx

from serving.status import RETRY_AFTER_S, BackendError, error_from
from slicewise.errors import InputError

OK = frozenset({200, 202, 204})
BUSY = frozenset({429, 503})
LONGEST_PAUSE_S = 30.0
NOT_OURS = "check the address: is a SliceWise server there?"


class Patience:
    """How much longer to wait for a busy server.

    Args:
        seconds: In all.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def pause_s(self, told: str | None) -> float | None:
        """How long to wait now; None when there is no time left.

        Args:
            told: The server's ``Retry-After``, in seconds.
        """
        asked = float(told) if told and told.isdigit() else float(RETRY_AFTER_S)
        pause = min(asked, LONGEST_PAUSE_S)
        return pause if time.monotonic() + pause <= self._until else None


def pause_after(response: httpx.Response, welcome: frozenset[int], patience: Patience) -> float | None:
    """How long to wait before the same request again; None where its answer stands."""
    if response.status_code not in BUSY - welcome:
        return None
    return patience.pause_s(response.headers.get("retry-after"))


def refusal(response: httpx.Response) -> InputError | BackendError:
    """The error that an answer holds, with the server's message and cure."""
    fields = _fields(response)
    if fields is None:
        return BackendError(f"the server answered {response.status_code} in a form of its own", NOT_OURS)
    if fields.get("code") in ("not_found", "method_not_allowed"):
        return BackendError(f"{response.request.url.path}: {fields.get('message')}", NOT_OURS)
    return error_from(fields)


def unreachable(error: httpx.TransportError, url: str) -> BackendError:
    """The error of a server that did not answer at all."""
    return BackendError(f"{url} cannot be reached: {error}", "start it with 'slicewise serve', or check the address")


def _fields(response: httpx.Response) -> Mapping[str, Any] | None:
    """Code, message and cure; in V2 the message comes as a string with the cure behind it."""
    try:
        body = response.json()
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        cure = str(body.get("cure") or "")
        return {"code": body.get("code"), "message": error.removesuffix(f" — {cure}"), "cure": cure}
    return error if isinstance(error, dict) else None
