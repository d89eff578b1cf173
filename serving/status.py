"""The one place where SliceWise's errors become HTTP and gRPC status codes.

Only messages written for callers leave the server: those of ``InputError`` and ``BackendError``. Everything
else may name folders of the server's machine and is answered by a fixed sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slicewise.errors import InputError, ServerError, TooLargeError


class UnsupportedMediaError(InputError):
    """A body of a kind that the service does not read (HTTP 415 / gRPC INVALID_ARGUMENT)."""


class BackendError(ServerError):
    """The model server did not answer as it should (HTTP 503 / gRPC UNAVAILABLE); the message is for callers."""


class DeadlineError(BackendError):
    """The model server took longer than the deadline (HTTP 504 / gRPC DEADLINE_EXCEEDED)."""


@dataclass(frozen=True)
class Status:
    """How an error leaves the server.

    Attributes:
        http: HTTP status.
        grpc: Name of the ``grpc.StatusCode``.
        code: Stable word for programs.
        phrase: HTTP reason phrase.
    """

    http: int
    grpc: str
    code: str
    phrase: str


_TABLE: tuple[tuple[type[Exception], Status], ...] = (
    (TooLargeError, Status(413, "RESOURCE_EXHAUSTED", "too_large", "Content Too Large")),
    (UnsupportedMediaError, Status(415, "INVALID_ARGUMENT", "unsupported_media_type", "Unsupported Media Type")),
    (InputError, Status(400, "INVALID_ARGUMENT", "invalid_input", "Bad Request")),
    (DeadlineError, Status(504, "DEADLINE_EXCEEDED", "deadline_exceeded", "Gateway Timeout")),
    (ServerError, Status(503, "UNAVAILABLE", "unavailable", "Service Unavailable")),
)
_INTERNAL = Status(500, "INTERNAL", "internal", "Internal Server Error")
_INTERNAL_BODY = ("the request could not be processed", "try again; the server's log has the reason")
_ERRORS: dict[str, type[InputError | BackendError]] = {
    "too_large": TooLargeError,
    "unsupported_media_type": UnsupportedMediaError,
    "invalid_input": InputError,
    "deadline_exceeded": DeadlineError,
    "unavailable": BackendError,
}


def status_of(error: BaseException) -> Status:
    """The status of an error."""
    return next((status for kind, status in _TABLE if isinstance(error, kind)), _INTERNAL)


def error_fields(error: BaseException) -> dict[str, str]:
    """``code``, ``message`` and ``cure`` of an error, without anything about the server's insides."""
    status = status_of(error)
    if isinstance(error, InputError | BackendError):
        return {"code": status.code, "message": error.message, "cure": error.cure}
    if isinstance(error, ServerError):
        return {"code": status.code, "message": "the model server is not available", "cure": "try again later"}
    return {"code": _INTERNAL.code, "message": _INTERNAL_BODY[0], "cure": _INTERNAL_BODY[1]}


def error_body(error: BaseException) -> dict[str, dict[str, str]]:
    """The JSON body of a failed request."""
    return {"error": error_fields(error)}


def error_from(fields: Any) -> InputError | BackendError:
    """The error that ``error_fields`` was made from, for a client or the gateway to raise again."""
    known = fields if isinstance(fields, dict) else {}
    kind = _ERRORS.get(str(known.get("code")), BackendError)
    return kind(str(known.get("message") or "the model server failed"), str(known.get("cure") or ""))
