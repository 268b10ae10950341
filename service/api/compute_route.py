"""Registers routes that compute."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Annotated, Any, TypeVar, get_type_hints

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import WithJsonSchema

from service.api.dependencies import requires
from service.api.hot_path import MAX_TIMEOUT_MS, TIMEOUT_HEADER, ComputeCall, ComputeRoute
from service.api.openapi import answers
from service.api.schemas.answers import ErrorEnvelope, ResponseBody
from service.api.schemas.requests import RequestBody

Endpoint = TypeVar("Endpoint", bound=Callable[..., Coroutine[Any, Any, Response]])


async def _get_call(
    request: Request,
    timeout_ms: Annotated[
        int | None,
        Header(
            alias=TIMEOUT_HEADER,
            ge=1,
            le=MAX_TIMEOUT_MS,
            description="milliseconds after which the answer is of no use",
        ),
        # A header cannot be null; without this the document would say that it can.
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS}),
    ] = None,
) -> ComputeCall:
    return ComputeCall.of(request, request.headers, timeout_ms)


CallDep = Annotated[ComputeCall, Depends(_get_call)]
INFER = Depends(requires("infer"))


def compute_route(
    router: APIRouter,
    path: str,
    answer: Any,
    summary: str,
    *,
    error: type[ResponseBody] = ErrorEnvelope,
    **options: Any,
) -> Callable[[Endpoint], Endpoint]:
    """Register a coroutine `(body: …Body, call: CallDep) -> Response` for POST.

    Raises TypeError at import for another signature, because the hot path passes just these two arguments.
    """

    def register(endpoint: Endpoint) -> Endpoint:
        _require_signature(endpoint)
        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            dependencies=[INFER],
            responses=answers(answer, error),
            summary=summary,
            route_class_override=ComputeRoute,
            **options,
        )
        return endpoint

    return register


def _require_signature(endpoint: Callable[..., Any]) -> None:
    hints = get_type_hints(endpoint, include_extras=True)
    body = hints.pop("body", None)
    takes_body = isinstance(body, type) and issubclass(body, RequestBody)
    if not (iscoroutinefunction(endpoint) and takes_body and hints == {"call": CallDep, "return": Response}):
        raise TypeError(f"{endpoint.__qualname__}: expected async def (body: RequestBody, call: CallDep) -> Response")
