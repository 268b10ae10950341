"""What the OpenAPI document says of every route: the errors it may answer, and the limits in force."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.middleware import OPEN_PATHS
from service.api.schemas.base import ErrorEnvelope
from service.config import Settings

_WHAT = {
    400: "the body is not JSON in UTF-8, or the job or file is in a state in which that cannot be done",
    401: "no API key came, or an unknown one",
    403: "the key has not the scope for this",
    404: "no such model, job, file or route",
    409: "somebody was faster, what is to go is in use, or the model's files are not what was published",
    413: "the body is too large",
    415: "the body is of another content type than the route reads",
    422: "JSON that breaks the contract; `param` says where",
    429: "the queue is full; Retry-After says when to come back",
    500: "the model failed on this input, or we did",
    503: "not ready, shutting down, or out of memory; Retry-After says when to come back",
    507: "no space left on disk",
    504: "the request's time ran out",
}
_HEADERS = {
    "x-request-id": {"description": "the id in the logs; yours, if you sent one", "schema": {"type": "string"}},
    "x-sonde-model": {"description": "the model and version that answered", "schema": {"type": "string"}},
    "x-sonde-truncated": {"description": "how many inputs were cut", "schema": {"type": "integer"}},
    "server-timing": {"description": "milliseconds of tokenising, waiting and computing", "schema": {"type": "string"}},
}
# The check itself is the middleware's, since it also covers paths that do not exist.
_KEYS = {
    "HTTPBearer": {"type": "http", "description": "an API key, once any exists", "scheme": "bearer"},
    "APIKeyHeader": {
        "type": "apiKey",
        "description": "the same key, for clients without Bearer",
        "in": "header",
        "name": "X-API-Key",
    },
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route."""
    return {status: {"model": ErrorEnvelope, "description": _WHAT[status]} for status in statuses}


READING = errors(401, 403)
COMPUTING = errors(400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)


WRITING = errors(400, 401, 403, 404, 409, 413, 415, 422, 507)


def answers(model: Any) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that computes: `model` when it goes well, any error when not."""
    return {**COMPUTING, 200: {"model": model, "headers": _HEADERS, "description": "computed"}}


def describe(app: FastAPI, settings: Settings) -> None:
    """Write the OpenAPI document with the limits that this process really has."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            document["components"]["schemas"].pop("HTTPValidationError", None)
            document["components"]["schemas"].pop("ValidationError", None)
            _put_keys(document)
            _put_limits(document, {"max_inputs": settings.max_inputs, "max_readings": settings.max_readings})
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _put_keys(document: dict[str, Any]) -> None:
    """Say of every path that needs a key that either header may bring it."""
    document["components"]["securitySchemes"] = _KEYS
    for path in document["paths"].keys() - OPEN_PATHS:
        for operation in document["paths"][path].values():
            operation["security"] = [{scheme: []} for scheme in _KEYS]


def _put_limits(node: Any, limits: dict[str, int]) -> None:
    """Replace each `x-sonde-limit` with the setting it names."""
    if isinstance(node, dict):
        name = node.pop("x-sonde-limit", None)
        if name is not None:
            node["maxItems"] = limits[name]
        for child in node.values():
            _put_limits(child, limits)
    elif isinstance(node, list):
        for child in node:
            _put_limits(child, limits)
