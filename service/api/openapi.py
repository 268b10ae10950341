"""The OpenAPI document: the errors of routes, the keys, and the limits in force."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.routing import Route

from service.api.examples import EXAMPLES, PARAMETERS, names_in_service, rename
from service.api.request_context import OPEN_PATHS
from service.api.schemas.answers import ErrorEnvelope, ResponseBody
from service.config import Settings
from service.version import VERSION

ABOUT: dict[str, Any] = {
    "title": "Sonde",
    "version": VERSION,
    "description": "Embeddings, classification, anomaly scores and rerank from pretrained PyTorch models.",
}
_DESCRIPTIONS = {
    400: "the body is not JSON in UTF-8, or the state of the job or file does not allow this",
    401: "the API key is missing, unknown or expired",
    403: "the key lacks the scope for this",
    404: "no such model, job, file or route",
    409: "another request was faster, the version is in use, or the model's files changed since publication",
    413: "the body is too large",
    415: "the route does not read the body's content type",
    422: "JSON that breaks the contract; `param` says where",
    429: "the queue is full, the key has used its rate, or it has too many unfinished jobs; see Retry-After",
    500: "the model failed on this input, the registry is damaged, or the service has a fault",
    503: "not ready, shutting down, or out of memory; Retry-After says when to come back",
    507: "no space left on disk, or a quota is used up",
    504: "the request's time ran out",
}
_SCHEMAS = "#/components/schemas/"
_HEADERS = {
    "x-request-id": {"description": "the id in the logs; yours, if you sent one", "schema": {"type": "string"}},
    "x-sonde-model": {"description": "the model and version that answered", "schema": {"type": "string"}},
    "x-sonde-truncated": {"description": "the number of inputs that were cut", "schema": {"type": "integer"}},
    "server-timing": {"description": "milliseconds of tokenizing, waiting and computing", "schema": {"type": "string"}},
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


# The bodies of errors. FastAPI would build a validator of one for each status of each route, a tenth of the start.
_shapes: set[type[ResponseBody]] = set()


def errors(*statuses: int, shape: type[ResponseBody] = ErrorEnvelope) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route."""
    _shapes.add(shape)
    return {status: {"description": _DESCRIPTIONS[status], "content": _body(shape.__name__)} for status in statuses}


def _body(schema: str) -> dict[str, Any]:
    """The content of a body whose schema is in the document."""
    return {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{schema}"}}}


READING = errors(401, 403, 429)
COMPUTING = (400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)
WRITING = errors(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 507)


def answers(model: Any, error: type[ResponseBody] = ErrorEnvelope) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that computes: `model` on success, else an error."""
    return {**errors(*COMPUTING, shape=error), 200: {"model": model, "headers": _HEADERS, "description": "computed"}}


def path_parameter(name: str) -> dict[str, Any]:
    """`openapi_extra=` of a route whose path names a model."""
    schema = {"type": "string", "minLength": 1, "maxLength": 256}
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": schema}]}


def describe(app: FastAPI, document_of_routes: Callable[[], bytes], settings: Settings) -> None:
    """Have the application complete a document of `write_document` with models in service and the limits in force."""

    def openapi() -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(document_of_routes())
        _put_examples(document, names_in_service(served.metadata for served in app.state.manager.all()))
        _put_limits(document, {"max_inputs": settings.max_inputs, "max_readings": settings.max_readings})
        return document

    def serve_document(request: Request) -> Response:
        return Response(orjson.dumps(openapi()), media_type="application/json")

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
    # FastAPI's own route would build the document on the event loop. This one runs in a thread.
    app.router.routes.insert(0, Route("/openapi.json", serve_document, include_in_schema=False))


def write_document(router: APIRouter) -> bytes:
    """The OpenAPI document of all routes, as JSON. FastAPI takes 0.4 s to build it."""
    document = get_openapi(**ABOUT, routes=router.routes)
    _put_error_schemas(document)
    _put_envelopes(document)
    _hide_choices(document)
    _put_keys(document)
    return orjson.dumps(document)


def _put_error_schemas(document: dict[str, Any]) -> None:
    """Put the schemas of the errors' bodies beside those that FastAPI has found."""
    _, found = models_json_schema([(shape, "serialization") for shape in _shapes], ref_template=_SCHEMAS + "{model}")
    document["components"]["schemas"] |= found["$defs"]


def _put_envelopes(document: dict[str, Any]) -> None:
    """Document our envelope where FastAPI documents its own answer to a wrong parameter."""
    for operation in _operations(document):
        wrong = operation["responses"].get("422", {})
        if f"{_SCHEMAS}HTTPValidationError" in str(wrong):
            wrong.update(content=_body(ErrorEnvelope.__name__), description=_DESCRIPTIONS[422])
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _hide_choices(node: Any) -> None:
    """Put each union of other than objects below `then`, which validators read and generators of clients do not.

    What generators make of such a union does not compile in Java and TypeScript; without it they take any value. Nor
    does a boolean that is always the same.
    """
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        _hide_choices(child)
    if isinstance(node, dict) and isinstance(node.get("const"), bool):
        node.update({"if": {}, "then": {"const": node.pop("const")}})
    if isinstance(node, dict) and isinstance(node.get("anyOf"), list):
        kinds = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
        if len(kinds) > 1 and not all("$ref" in choice for choice in kinds):
            node.update({"if": {}, "then": {"anyOf": node.pop("anyOf")}})


def _put_examples(document: dict[str, Any], names: Mapping[str, str]) -> None:
    """Put an example into each JSON body and each parameter of a path, with models in service where there are any."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if (body := operation.get("requestBody", {}).get("content", {}).get("application/json")) is not None:
                body["example"] = rename(EXAMPLES[method, path], names)
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["example"] = rename(PARAMETERS[parameter["name"]], names)


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


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
