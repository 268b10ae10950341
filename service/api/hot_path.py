"""The hot path: requests to routes that compute, from the headers to the answer, without FastAPI.

FastAPI and a chain of middleware take longer for a short text than all else that this process does for it, and all
callers share its event loop. Both ways give the same answers, by the same parts.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import error_responses
from service.api.content_encoding import LEAST_BYTES, accepts_gzip, compressing
from service.api.http_protocol import CONNECTION, TimeoutProtocol
from service.api.json_body import JsonRoute, image_field, read_json, takes_readings
from service.api.request_context import RequestChecks, RequestContext, RequestReports, require_own_host
from service.api.schemas.requests import RequestBody, require_count
from service.auth import ANYONE
from service.config import Settings
from service.errors import ClientGone
from service.serving.kept_inputs import KeptInputs
from service.serving.model_manager import ModelManager
from service.serving.servable import Caller, Servable, Timings

T = TypeVar("T")
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
MAX_TIMEOUT_MS = 3_600_000
_CLIENT_TIMEOUT_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
_HUNG_UP = "the caller hung up"
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
# Headers of requests that take the general way: deadlines, packed bodies and web pages.
_GENERAL = {TIMEOUT_HEADER.lower(), "content-encoding", "origin", "sec-fetch-site"}

# Paths with parameters whose route and parameters are kept, and the most characters of one.
_KEPT_PATHS, _SHORT_PATH = 256, 128


@dataclass(frozen=True, slots=True)
class ComputeCall:
    """One request to a route that computes, and its caller."""

    request: Request
    caller: Caller
    headers: Mapping[str, str]

    @classmethod
    def of(cls, request: Request, headers: Mapping[str, str], timeout_ms: int | None = None) -> ComputeCall:
        """The call of a request.

        Fairness is between keys, or between addresses where keys are not in use.
        """
        key, address = RequestContext.of(request).key, request.scope["client"]
        client = key.id if key.digest else address[0] if address else ""
        if timeout_ms is not None:
            return cls(request, Caller(client, time.monotonic() + timeout_ms / 1000), headers)
        seconds = max(request.app.state.settings.default_timeout_s, _patience_of_client(headers))
        return cls(request, Caller(client, time.monotonic() + seconds, seconds), headers)

    @property
    def manager(self) -> ModelManager:
        manager: ModelManager = self.request.app.state.manager
        return manager

    @property
    def settings(self) -> Settings:
        settings: Settings = self.request.app.state.settings
        return settings

    def require_inputs(self, count: int, param: str) -> None:
        """Raise InvalidRequest for more inputs than one request may carry."""
        require_count(count, self.settings.max_inputs, param)

    async def cancel_on_disconnect(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled as soon as the caller hangs up.

        Raises ClientGone then.
        """
        connection: TimeoutProtocol | None = self.request.scope["state"].get(CONNECTION)
        if connection is None:
            return await self._cancel_on_message(work)
        connection.cancel_when_lost(asyncio.current_task())
        try:
            return await work
        except asyncio.CancelledError:
            if connection.is_lost:
                raise ClientGone(_HUNG_UP) from None
            raise
        finally:
            connection.cancel_when_lost(None)

    async def _cancel_on_message(self, work: Coroutine[Any, Any, T]) -> T:
        """The same by ASGI's message, which takes a task: for servers whose connection is not ours."""
        watching = asyncio.ensure_future(_cancel_when_disconnected(self.request, asyncio.current_task()))
        try:
            return await work
        except asyncio.CancelledError:
            if watching.done():
                raise ClientGone(_HUNG_UP) from None
            raise
        finally:
            watching.cancel()

    @property
    def kept_inputs(self) -> KeptInputs:
        """Where classified inputs wait for review."""
        kept: KeptInputs = self.request.app.state.kept_inputs
        return kept

    def keep_for_review(
        self,
        served: Servable,
        texts: Sequence[str],
        answers: Sequence[Mapping[str, object]],
        *,
        are_images: bool = False,
    ) -> None:
        """Keep classified texts, or images as data URIs, with their answers, where the operator asks for it."""
        owner = RequestContext.of(self.request).key.id
        self.kept_inputs.add(owner, served.label, texts, answers, are_images=are_images)

    def respond(self, body: bytes, served: Servable, *parts: Timings, media_type: str = "application/json") -> Response:
        """An answer with the model, the times and the number of cut inputs in its headers."""
        facts = facts_of(served, parts)
        RequestContext.of(self.request).facts.update(facts)
        times = facts["tokenize_ms"], facts["queue_ms"], facts["inference_ms"]
        timing = b"tokenize;dur=%.2f, queue;dur=%.2f, inference;dur=%.2f" % times
        return _Computed(
            body,
            [
                (b"content-length", b"%d" % len(body)),
                (b"content-type", media_type.encode()),
                (b"x-sonde-model", served.label.encode("latin-1")),
                (b"x-sonde-truncated", b"%d" % facts["truncated"]),
                (b"server-timing", timing),
            ],
        )


class RawRoute(APIRoute):
    """A route that computes and reads its body itself: `async (call: CallDep, **parameters of its path)`."""


class ComputeRoute(JsonRoute):
    """A route that `compute_route` made, so that the hot path can call it."""


@dataclass(frozen=True, slots=True)
class _JsonRoute:
    """A route whose body is JSON."""

    route: ComputeRoute
    body: type[RequestBody]
    with_readings: bool
    image_field: str | None

    async def compute(self, scope: Scope, receive: Receive, headers: dict[str, str], settings: Settings) -> Response:
        """Read the body and answer. Raises what the route raises."""
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
        """Read the body and answer. Raises what the route raises."""
        request = Request(scope, receive)
        RequestContext.of(request).require_scope("infer")
        response: Response = await self.route.endpoint(call=ComputeCall.of(request, headers), **self.parameters)
        return response


_Route = _JsonRoute | _RawRoute


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
            if len(response.body) >= LEAST_BYTES and accepts_gzip(headers.get("accept-encoding", "")):
                await compressing(response)(scope, receive, send)
            else:
                await _send(response, send)
        finally:
            self._reports.end(scope, context)

    def _find(self, path: str) -> _Route | None:
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
        self, hot: _Route, scope: Scope, receive: Receive, headers: dict[str, str], context: RequestContext
    ) -> Response:
        """The route's response, or the one to the error that ended the request."""
        try:
            context.key = self._checks.key_of(headers)
            if context.key is ANYONE:
                require_own_host([headers["host"]] if "host" in headers else [], self._settings)
            self._checks.admit(context.key)
            scope["route"] = hot.route  # for the log and the metrics, as FastAPI does once a request may come in
            return await hot.compute(scope, receive, headers, self._settings)
        except (Exception, asyncio.CancelledError) as error:
            return error_responses.response_to(error, hot.route.path, context.request_id)


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


def facts_of(served: Servable, parts: Sequence[Timings]) -> dict[str, Any]:
    """What the log says of a computation: its model, sizes and times."""
    return {
        "model": served.label,
        "inputs": sum([rows.inputs for rows in parts]),
        "tokens": sum([rows.token_count for rows in parts]),
        "truncated": sum([rows.truncated for rows in parts]),
        "tokenize_ms": _milliseconds([rows.tokenize_s for rows in parts]),
        "queue_ms": _milliseconds([rows.queue_s for rows in parts]),
        "inference_ms": _milliseconds([rows.inference_s for rows in parts]),
    }


def _milliseconds(seconds: Sequence[float]) -> float:
    """The longest of several times."""
    return round(1000 * max(seconds, default=0.0), 3)


class _Computed(Response):
    """A response whose headers are bytes already: Starlette's would be encoded one by one."""

    def __init__(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status_code = 200
        self.body = body
        self.raw_headers = headers
        self.background = None


def _patience_of_client(headers: Mapping[str, str]) -> float:
    """The seconds for which OpenAI's clients say that they wait; 0 where they do not say."""
    for name in _CLIENT_TIMEOUT_HEADERS:
        given = headers.get(name, "")
        if given and _SECONDS.fullmatch(given):
            return min(float(given), MAX_TIMEOUT_MS / 1000)
    return 0.0


async def _cancel_when_disconnected(request: Request, working: asyncio.Task[Any] | None) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if working is not None:
        working.cancel()
