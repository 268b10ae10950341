"""The OpenAPI document: the errors of routes, the keys, and the limits in force."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.middleware import OPEN_PATHS
from service.api.schemas.base import ErrorEnvelope, ResponseBody
from service.config import Settings

_DESCRIPTIONS = {
    400: "the body is not JSON in UTF-8, or the state of the job or file does not allow this",
    401: "the API key is missing or unknown",
    403: "the key lacks the scope for this",
    404: "no such model, job, file or route",
    409: "another request was faster, the version is in use, or the model's files changed since publication",
    413: "the body is too large",
    415: "the route does not read the body's content type",
    422: "JSON that breaks the contract; `param` says where",
    429: "the queue is full, or there are too many unfinished jobs; Retry-After says when to come back",
    500: "the model failed on this input, the registry is damaged, or the service has a fault",
    503: "not ready, shutting down, or out of memory; Retry-After says when to come back",
    507: "no space left on disk, or a quota is used up",
    504: "the request's time ran out",
}
_HEADERS = {
    "x-request-id": {"description": "the id in the logs; yours, if you sent one", "schema": {"type": "string"}},
    "x-sonde-model": {"description": "the model and version that answered", "schema": {"type": "string"}},
    "x-sonde-truncated": {"description": "the number of inputs that were cut", "schema": {"type": "integer"}},
    "server-timing": {"description": "milliseconds of tokenising, waiting and computing", "schema": {"type": "string"}},
}
# The middleware checks keys, because it also covers paths that do not exist.
_KEYS = {
    "HTTPBearer": {"type": "http", "description": "an API key, once any exists", "scheme": "bearer"},
    "APIKeyHeader": {
        "type": "apiKey",
        "description": "the same key, for clients without Bearer",
        "in": "header",
        "name": "X-API-Key",
    },
    "AzureKeyHeader": {
        "type": "apiKey",
        "description": "the same key, as Azure OpenAI's clients send it",
        "in": "header",
        "name": "api-key",
    },
}


def errors(*statuses: int, shape: type[ResponseBody] = ErrorEnvelope) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route."""
    return {status: {"model": shape, "description": _DESCRIPTIONS[status]} for status in statuses}


READING = errors(401, 403)
COMPUTING = (400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)
WRITING = errors(400, 401, 403, 404, 409, 413, 415, 422, 500, 507)


def answers(model: Any, error: type[ResponseBody] = ErrorEnvelope) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that computes: `model` on success, else an error."""
    return {**errors(*COMPUTING, shape=error), 200: {"model": model, "headers": _HEADERS, "description": "computed"}}


def path_parameter(name: str) -> dict[str, Any]:
    """`openapi_extra=` of a route whose path names a model."""
    schema = {"type": "string", "minLength": 1, "maxLength": 256}
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": schema}]}


def describe(app: FastAPI, settings: Settings) -> None:
    """Have the application write its OpenAPI document with the limits in force."""

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
    """Document the headers for the key on every path that needs one."""
    document["components"]["securitySchemes"] = _KEYS
    for path in document["paths"].keys() - OPEN_PATHS:
        for operation in document["paths"][path].values():
            operation["security"] = [{scheme: []} for scheme in _KEYS]


def _put_limits(node: Any, limits: dict[str, int]) -> None:
    """Replace each `x-sonde-limit` with the setting that it names."""
    if isinstance(node, dict):
        name = node.pop("x-sonde-limit", None)
        if name is not None:
            node["maxItems"] = limits[name]
        for child in node.values():
            _put_limits(child, limits)
    elif isinstance(node, list):
        for child in node:
            _put_limits(child, limits)
