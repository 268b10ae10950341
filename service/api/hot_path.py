"""The hot path: requests to routes that compute, from the headers to the answer, without FastAPI.

FastAPI and a chain of middleware take longer for a short text than all else that this process does for it, and all
callers share its event loop. Both ways give the same answers, by the same parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import error_responses
from service.api.compute_route import TIMEOUT_HEADER, ComputeCall, ComputeRoute, RawRoute
from service.api.content_encoding import accepts_gzip, compressing
from service.api.foreign_pages import require_own_host
from service.api.json_body import image_field, read_json, takes_readings
from service.api.middleware import RequestChecks, RequestContext, RequestReports
from service.api.schemas.base import RequestBody
from service.auth import ANYONE
from service.config import Settings

# Headers of requests that take the general way: deadlines, packed bodies and web pages.
_GENERAL = {TIMEOUT_HEADER.lower(), "content-encoding", "origin", "sec-fetch-site"}

# Paths with parameters whose route and parameters are kept, and the most characters of one.
_KEPT_PATHS, _SHORT_PATH = 256, 128


class _HotRoute(Protocol):
    """A route that this way answers."""

    @property
    def route(self) -> APIRoute:
        """FastAPI's route, which the log and the metrics name."""
        ...

    async def compute(self, scope: Scope, receive: Receive, headers: dict[str, str], settings: Settings) -> Response:
        """Read the body and answer. Raises what the route raises."""
        ...


@dataclass(frozen=True, slots=True)
class _JsonRoute:
    """A route whose body is JSON."""

    route: ComputeRoute
    body: type[RequestBody]
    with_readings: bool
    image_field: str | None

    async def compute(self, scope: Scope, receive: Receive, headers: dict[str, str], settings: Settings) -> Response:
        """See _HotRoute."""
        request = await read_json(
            scope, receive, headers, settings, with_readings=self.with_readings, image_field=self.image_field
        )
        RequestContext.of(request).require_scope("infer")
        try:
            body = self.body.model_validate(request.parsed, from_attributes=True)
        except ValidationError as error:
            faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)]
            return error_responses.validation_response(faults, self.route.path)
        response: Response = await self.route.endpoint(body, ComputeCall.of(request, headers))
        return response


@dataclass(frozen=True, slots=True)
class _RawRoute:
    """A route that reads its body itself, and the parameters of its path."""

    route: RawRoute
    parameters: dict[str, str]

    async def compute(self, scope: Scope, receive: Receive, headers: dict[str, str], settings: Settings) -> Response:
        """See _HotRoute."""
        request = Request(scope, receive)
        RequestContext.of(request).require_scope("infer")
        response: Response = await self.route.endpoint(call=ComputeCall.of(request, headers), **self.parameters)
        return response


class HotPath:
    """Answers requests to routes that compute, and passes all others on.

    Others are paths with parameters but those of `RawRoute`, headers that stand twice, and those with a header of
    `_GENERAL`.
    """

    def __init__(
        self,
        app: ASGIApp,
        routers: Iterable[APIRouter],
        settings: Settings,
        checks: RequestChecks,
        reports: RequestReports,
    ) -> None:
        self._app = app
        self._settings = settings
        self._checks = checks
        self._reports = reports
        # Answers to pages of these origins differ, so that caches must not mix them up.
        self._vary = [(b"vary", b"Origin")] if settings.cors_origin else []
        routes = [route for router in routers for route in router.routes]
        compute = [route for route in routes if isinstance(route, ComputeRoute) and "{" not in route.path]
        self._routes = {route.path: _json_route(route) for route in compute}
        self._raw_routes = [route for route in routes if isinstance(route, RawRoute)]
        self._find_short = lru_cache(_KEPT_PATHS)(self._match)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        hot = self._find(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        headers = _plain_headers(scope["headers"]) if hot is not None else None
        if hot is None or headers is None:
            await self._app(scope, receive, send)
            return
        context = self._reports.begin(scope, headers)
        try:
            response = await self._respond(hot, scope, receive, headers, context)
            context.status = response.status_code
            if context.status >= 400:
                context.error_code = response.headers["x-sonde-error"]
            response.raw_headers += [(b"x-request-id", context.request_id.encode()), *self._vary]
            if accepts_gzip(headers.get("accept-encoding", "")):
                await compressing(response)(scope, receive, send)
            else:
                await _send(response, send)
        finally:
            self._reports.end(scope, context)

    def _find(self, path: str) -> _HotRoute | None:
        found = self._routes.get(path)
        if found is not None:
            return found
        return self._find_short(path) if len(path) <= _SHORT_PATH else self._match(path)

    def _match(self, path: str) -> _RawRoute | None:
        for route in self._raw_routes:
            if match := route.path_regex.match(path):
                return _RawRoute(route, match.groupdict())
        return None

    async def _respond(
        self, hot: _HotRoute, scope: Scope, receive: Receive, headers: dict[str, str], context: RequestContext
    ) -> Response:
        """The route's response, or the one to the error that ended the request."""
        try:
            return await self._compute(hot, scope, receive, headers, context)
        except (Exception, asyncio.CancelledError) as error:
            return error_responses.response_to(error, hot.route.path, context.request_id)

    async def _compute(
        self, hot: _HotRoute, scope: Scope, receive: Receive, headers: dict[str, str], context: RequestContext
    ) -> Response:
        context.key = self._checks.key_of(headers)
        if context.key is ANYONE:
            require_own_host([headers["host"]] if "host" in headers else [], self._settings)
        self._checks.admit(context.key)
        scope["route"] = hot.route  # for the log and the metrics, as FastAPI does once a request may come in
        return await hot.compute(scope, receive, headers, self._settings)


def _json_route(route: ComputeRoute) -> _JsonRoute:
    """Raises TypeError for a route without a body, which `compute_route` does not make."""
    field = route.body_field
    if field is None or not isinstance(field.field_info.annotation, type):
        raise TypeError(f"{route.path} takes a body")
    return _JsonRoute(route, field.field_info.annotation, takes_readings(field), image_field(field))


def _plain_headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str] | None:
    """The headers; None where the general way must read them."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    return headers if len(headers) == len(raw) and _GENERAL.isdisjoint(headers) else None


async def _send(response: Response, send: Send) -> None:
    """Send a response in two messages."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})
