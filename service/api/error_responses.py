"""Errors as HTTP responses: one table from error to status, one envelope, no internals."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from models.errors import (
    ArtifactError,
    BadName,
    DeviceLost,
    ImageError,
    ImageTooLarge,
    ModelOutOfMemory,
    NotRegistered,
    RegistryBusy,
    RegistryConflict,
    RegistryDamaged,
    SondeError,
    TensorError,
    TextError,
    UnsupportedImage,
)
from models.filesystem import is_full
from models.training.errors import HyperparameterError
from models.validation_messages import describe_fault
from service import errors as e
from service.api import content_encoding
from service.api.schemas.requests import shorten_name

log = logging.getLogger(__name__)

# The nearest ancestor in this table decides. An error without one is about the service, not the request: its message
# may name files, so only the log gets it.
STATUS: dict[type[SondeError], int] = {
    e.RequestError: 422,
    e.MalformedBody: 400,
    e.UnsupportedMedia: 415,
    e.BodyTooLarge: 413,
    e.ModelNotFound: 404,
    e.JobNotFound: 404,
    e.JobState: 400,  # not 409: OpenAI's clients would retry
    e.FileMissing: 404,
    e.FileInUse: 400,
    e.StorageFull: 507,
    e.AuthError: 401,
    e.ScopeDenied: 403,
    e.UnknownHost: 403,
    e.ForeignOrigin: 403,
    e.CapacityError: 503,
    e.Overloaded: 429,
    e.DeadlineExceeded: 504,
    e.ClientGone: 499,
    e.BackendError: 500,
    TextError: 422,
    ImageError: 422,
    UnsupportedImage: 415,
    ImageTooLarge: 413,
    TensorError: 422,
    HyperparameterError: 422,
    BadName: 422,
    NotRegistered: 404,
    RegistryConflict: 409,
    RegistryDamaged: 500,
    RegistryBusy: 503,
    ArtifactError: 409,
    ModelOutOfMemory: 503,
    DeviceLost: 503,
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_VALIDATION_CODES = {"extra_forbidden": "unknown_field", "missing": "missing_field"}
# A base URL of other services ends in /api/v1.
_OLLAMA, _NOT_OLLAMA = "/api/", "/api/v1/"
# Cohere's routes are below /v2, too.
_OPEN_INFERENCE = ("/v2/models", "/v2/health", "/v2/repository")
_NOT_HERE = {"/v1/uploads": "files are uploaded in one request: POST /v1/files"}
_HTTP_CODES = {404: "route_not_found", 405: "method_not_allowed"}


def status_of(error: SondeError) -> int | None:
    """The HTTP status of an error; None when callers must not see it."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), None)


def response_to(error: BaseException, path: str, request_id: str) -> Response:
    """The response to the error that ended a request. uvicorn cancels requests at the end of a shutdown."""
    if isinstance(error, SondeError):
        return error_response(error, path)
    if isinstance(error, asyncio.CancelledError):
        return error_response(e.Unavailable("the service is shutting down"), path)
    log.error("unexpected error", exc_info=error, extra={"request_id": request_id})
    return internal(path)


def error_response(error: SondeError, path: str = "") -> Response:
    """The response to an error of ours on a path, with its message.

    Our messages never quote an exception of a library.
    """
    status = status_of(error)
    if status is None:
        log.error("request failed: %s", error.message, exc_info=error)
        return internal(path)
    response = envelope(status, error.message, code=error.code, param=error.param, path=path)
    if isinstance(error, e.CapacityError):
        response.headers["retry-after"] = str(error.retry_after_s)
    elif status == 503:
        response.headers["retry-after"] = "1"
    if isinstance(error, e.UnsupportedMedia) and error.param == "content-encoding":
        response.headers["accept-encoding"] = ", ".join(content_encoding.NAMES)  # RFC 9110, 15.5.16
    if status == 409:
        response.headers["x-should-retry"] = "false"  # OpenAI's clients repeat a 409 otherwise
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def envelope(status: int, message: str, *, code: str, param: str | None = None, path: str = "") -> Response:
    """The one shape that all errors have; on some paths the shape that their clients read."""
    kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
    about = {"message": _encodable(message), "type": kind, "param": param and _encodable(param), "code": code}
    body = {"error": about["message"] if _takes_plain_errors(path) else about}
    response = Response(orjson.dumps(body), status, media_type="application/json")
    response.headers["x-sonde-error"] = code
    return response


def _takes_plain_errors(path: str) -> bool:
    """Whether clients of a path read an error as a text: Ollama's, and those of the Open Inference Protocol."""
    return (path.startswith(_OLLAMA) and not path.startswith(_NOT_OLLAMA)) or path.startswith(_OPEN_INFERENCE)


def _encodable(text: str) -> str:
    """The text with lone surrogates spelled out.

    A caller may send one in a name, and UTF-8 cannot encode it.
    """
    return text.encode(errors="backslashreplace").decode()


def internal(path: str = "") -> Response:
    """The response to a fault of ours, which tells the caller nothing else."""
    return envelope(500, "an internal error; the request id is in x-request-id", code="internal_error", path=path)


def install(app: FastAPI) -> None:
    """Register this module's handlers for every error."""
    app.add_exception_handler(SondeError, _on_sonde_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(OSError, _on_os_error)


def path_of(location: tuple[int | str, ...]) -> str | None:
    """`("body", "input", 3)` → `input[3]`; long names are cut."""
    path = ""
    for part in location[1:] if location and location[0] in {"body", "header", "path", "query"} else location:
        path += f"[{part}]" if isinstance(part, int) else f".{shorten_name(part)}" if path else shorten_name(part)
    return path or None


async def _on_sonde_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SondeError)  # noqa: S101  # what the handler is registered for
    return error_response(error, request.url.path)


async def _on_os_error(request: Request, error: Exception) -> Response:
    """Report a full or read-only disk, because the caller can wait or delete files.

    Other system errors are faults of ours.
    """
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        log.error("%s %s: the disk is read-only", request.method, request.url.path, exc_info=error)
        return error_response(e.Unavailable("the server's disk is read-only: try again once it can be written"))
    if not is_full(error):
        raise error
    log.error("%s %s: no space is left", request.method, request.url.path, exc_info=error)
    full = e.StorageFull("no space is left on the server's disk: free some, and send the request again")
    return error_response(full, request.url.path)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # what the handler is registered for
    return validation_response(error.errors(), request.url.path)


def validation_response(errors: Sequence[dict[str, Any]], path: str) -> Response:
    """The response to a request that pydantic refuses, by its first error."""
    first = errors[0]
    param = path_of(tuple(first["loc"]))
    code = _VALIDATION_CODES.get(str(first["type"]), e.InvalidRequest.code)
    message = f"{param or 'body'}: {describe_fault(first)}"
    if "input" in first and code == e.InvalidRequest.code:
        message += f", got {_shorten(first['input'])}"
    return envelope(422, message, code=code, param=param, path=path)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # what the handler is registered for
    code = _HTTP_CODES.get(error.status_code, e.RequestError.code)
    path = request.scope["path"]
    message = f"{request.method} {path}: {error.detail}"
    if remedy := next((remedy for start, remedy in _NOT_HERE.items() if path.startswith(start)), None):
        message += f"; {remedy}"
    elif error.status_code == 404 and (other := _similar_path(request)):
        message += f"; there is {other}: correct the client's base URL"
        if other == path.rstrip("/"):
            return _redirect(other, request, message)
    elif error.status_code == 404:
        message += "; /docs shows the routes"
    response = envelope(error.status_code, message, code=code, path=path)
    response.headers.update(error.headers or {})
    return response


def _redirect(path: str, request: Request, message: str) -> Response:
    """The error to a path with a slash too many, which clients that follow redirects do not see."""
    response = envelope(307, message, code=_HTTP_CODES[404], path=path)
    response.headers["location"] = path + (f"?{request.url.query}" if request.url.query else "")
    return response


def _similar_path(request: Request) -> str | None:
    """Another path, which is a route's, where the request's has /v1, /api or a slash too many or too few."""
    asked: str = request.scope["path"]
    path = re.sub(r"^(/v1)+(?=/)", "/v1", re.sub("/{2,}", "/", asked)).rstrip("/")
    for other in (path, path.removeprefix("/v1"), f"/v1{path}", path.removeprefix("/api")):
        scope = {"type": "http", "method": request.method, "path": other}
        if other != asked and any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            return other
    return None


def _shorten(value: object) -> str:
    """A value in a few words."""
    if isinstance(value, str | list | dict) and len(value) > 20:
        return f"a {type(value).__name__} of length {len(value)}"
    try:
        return repr(value)[:80]
    except RecursionError:  # JSON may be as deep as Python's stack
        return f"a {type(value).__name__}"
