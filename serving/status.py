"""The one place where SliceWise's errors become HTTP and gRPC status codes.

Only messages written for callers leave the server: those of ``InputError`` and ``BackendError``. Everything
else may name folders of the server's machine and is answered by a fixed sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slicewise.errors import InputError, ServerError, TooLargeError


class NotFoundError(InputError):
    """Something else that is not there (HTTP 404 / gRPC NOT_FOUND)."""


class UnknownJobError(InputError):
    """A job that is not there, or no longer (HTTP 404 / gRPC NOT_FOUND)."""


class JobStateError(InputError):
    """A job is not at the point where it has what was asked for (HTTP 409 / gRPC FAILED_PRECONDITION)."""


class UnsuitableError(InputError):
    """What was asked for cannot be made of this input (HTTP 422 / gRPC FAILED_PRECONDITION)."""


class UnsupportedMediaError(InputError):
    """A body of a kind that the service does not read (HTTP 415 / gRPC INVALID_ARGUMENT)."""


class BackendError(ServerError):
    """The model server did not answer as it should (HTTP 503 / gRPC UNAVAILABLE); the message is for callers."""


class DeadlineError(BackendError):
    """The model server took longer than the deadline (HTTP 504 / gRPC DEADLINE_EXCEEDED)."""


class BusyError(BackendError):
    """Too many requests at once (HTTP 429 / gRPC RESOURCE_EXHAUSTED)."""


class UnknownVersionError(InputError):
    """A model version that is not served (HTTP 404 / gRPC NOT_FOUND)."""


# A worker that died is back within seconds; a full queue moves on within one.
RETRY_AFTER_S = 2


class SlowBodyError(InputError):
    """A body that stopped coming (HTTP 408 / gRPC DEADLINE_EXCEEDED)."""


_INTERNAL_BODY = ("the request could not be processed", "try again; the server's log has the reason")


class InternalItemError(InputError):
    """One item failed for a reason that is not the caller's (HTTP 500 / gRPC INTERNAL); the log has it."""

    def __init__(self, message: str = _INTERNAL_BODY[0], cure: str = _INTERNAL_BODY[1]) -> None:
        super().__init__(message, cure)


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
    (UnknownVersionError, Status(404, "NOT_FOUND", "unknown_version", "Not Found")),
    (NotFoundError, Status(404, "NOT_FOUND", "not_found", "Not Found")),
    (UnknownJobError, Status(404, "NOT_FOUND", "unknown_job", "Not Found")),
    (JobStateError, Status(409, "FAILED_PRECONDITION", "job_state", "Conflict")),
    (UnsuitableError, Status(422, "FAILED_PRECONDITION", "unsuitable", "Unprocessable Content")),
    (SlowBodyError, Status(408, "DEADLINE_EXCEEDED", "slow_body", "Request Timeout")),
    (InternalItemError, Status(500, "INTERNAL", "internal", "Internal Server Error")),
    (InputError, Status(400, "INVALID_ARGUMENT", "invalid_input", "Bad Request")),
    (DeadlineError, Status(504, "DEADLINE_EXCEEDED", "deadline_exceeded", "Gateway Timeout")),
    (BusyError, Status(429, "RESOURCE_EXHAUSTED", "busy", "Too Many Requests")),
    (ServerError, Status(503, "UNAVAILABLE", "unavailable", "Service Unavailable")),
)
_INTERNAL = Status(500, "INTERNAL", "internal", "Internal Server Error")
_ERRORS: dict[str, type[InputError | BackendError]] = {
    "too_large": TooLargeError,
    "unsupported_media_type": UnsupportedMediaError,
    "invalid_input": InputError,
    "unknown_version": UnknownVersionError,
    "unknown_job": UnknownJobError,
    "job_state": JobStateError,
    "unsuitable": UnsuitableError,
    "slow_body": SlowBodyError,
    "internal": InternalItemError,
    "deadline_exceeded": DeadlineError,
    "busy": BusyError,
    "unavailable": BackendError,
}


def status_of(error: BaseException) -> Status:
    """The status of an error."""
    return next((status for kind, status in _TABLE if isinstance(error, kind)), _INTERNAL)


def retry_headers(error: BaseException) -> dict[str, str]:
    """``Retry-After`` where trying again helps: when the server is busy or away, not when the request is wrong."""
    return {"Retry-After": str(RETRY_AFTER_S)} if status_of(error).http in (429, 503) else {}


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
