"""The way from the middleware straight to the routes that compute.

What FastAPI does between a request and its route (exit stacks, dependencies solved anew, handlers around handlers)
takes a quarter of what a short text takes of the event loop, which all callers share.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import error_responses
from service.api.deps import INFER, TIMEOUT_HEADER, caller_of, require_scope
from service.api.json_body import read_json

_GIVEN = ["body", "request", "manager", "settings", "caller"]


class FastPathMiddleware:
    """Calls routes that take a body and what every route that computes is given, with just that, and answers as
    FastAPI would.

    All else goes on to FastAPI, as does a request that says how long it may take, since FastAPI reads that header.
    """

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self._app = app
        routes = (route for router in routers for route in router.routes)
        self._routes = {route.path: route for route in routes if isinstance(route, APIRoute) and _is_plain(route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None or TIMEOUT_HEADER in Headers(scope=scope):
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        response = await _answer(route, Request(scope, receive))
        await response(scope, receive, send)


def _is_plain(route: APIRoute) -> bool:
    """Whether there is nothing about a route that only FastAPI knows to do."""
    return (
        route.methods == {"POST"}
        and route.dependencies == [INFER]
        and list(signature(route.endpoint).parameters) == _GIVEN
    )


async def _answer(route: APIRoute, request: Request) -> Response:
    state = request.app.state
    prepared = await read_json(request)
    require_scope(request, "infer")
    if route.body_field is None:
        raise TypeError(f"{route.path} takes a body")
    body, errors = route.body_field.validate(prepared.parsed, loc=("body",))
    if errors:
        return error_responses.validation_response(errors)
    answer: Response = await route.endpoint(body, prepared, state.manager, state.settings, caller_of(request, None))
    return answer
