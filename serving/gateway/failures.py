"""Every error of the gateway as JSON: code, message and cure, and nothing about its insides."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from serving.gateway.sdk import InferenceError, InvalidInput, ModelNotFound, ModelNotReady, UnsupportedProtocol
from serving.status import BackendError, error_fields, retry_headers, status_of
from slicewise.errors import InputError, SliceWiseError

V2_PREFIX = "/v2"

log = logging.getLogger(__name__)


def add_handlers(app: FastAPI) -> None:
    """Answer all exceptions in one form, in place of the SDK's, which print exceptions to callers."""
    app.add_exception_handler(SliceWiseError, _deliberate)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    for kind in (InvalidInput, InferenceError, UnsupportedProtocol):
        app.add_exception_handler(kind, _invalid)
    app.add_exception_handler(ModelNotFound, _missing)
    app.add_exception_handler(ModelNotReady, _unready)
    app.add_exception_handler(Exception, _unexpected)


def reply(request: Request, http: int, fields: dict[str, str], headers: Mapping[str, str] | None = None) -> Response:
    """The error as JSON; below ``/v2`` ``error`` is a string, as that protocol wants."""
    if request.url.path.startswith(V2_PREFIX):
        text = " — ".join(part for part in (fields["message"], fields["cure"]) if part)
        return JSONResponse({"error": text, "code": fields["code"], "cure": fields["cure"]}, http, headers)
    return JSONResponse({"error": fields}, http, headers)


async def _deliberate(request: Request, error: Exception) -> Response:
    status = status_of(error)
    fields = error_fields(error)
    # What a caller did wrong names his files, and these may name patients.
    told = fields["code"] if isinstance(error, InputError) else error
    log.info("%s %s: %d: %s", request.method, _place(request), status.http, told)
    return reply(request, status.http, fields, retry_headers(error))


def _place(request: Request) -> str:
    """The route, without what a caller put into the address: a job's id opens its result."""
    return str(getattr(request.scope.get("route"), "path", "an unknown address"))


async def _http(request: Request, error: Exception) -> Response:
    http = getattr(error, "status_code", 400)
    words = {404: ("not_found", "there is no such address"), 405: ("method_not_allowed", "wrong method")}
    code, message = words.get(http, ("invalid_input", str(getattr(error, "detail", "")) or "bad request"))
    return reply(request, http, {"code": code, "message": message, "cure": "see the documentation of the routes"})


async def _invalid(request: Request, error: Exception) -> Response:
    reason = getattr(error, "reason", None)
    message = str(reason) if reason else "the request's fields are not as the protocol wants"
    return await _deliberate(request, InputError(message, "correct the request"))


async def _missing(request: Request, error: Exception) -> Response:
    fields = {"code": "not_found", "message": str(error), "cure": "GET /v1/models lists the models"}
    return reply(request, 404, fields)


async def _unready(request: Request, _: Exception) -> Response:
    return await _deliberate(request, BackendError("the model is not ready", "try again in a few seconds"))


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, _place(request), exc_info=error)
    return reply(request, 500, error_fields(error))
