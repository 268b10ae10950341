"""Routes that compute: what they are given, and how they answer."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Annotated, Any, TypeVar, get_type_hints

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.routing import APIRoute
from pydantic import WithJsonSchema

from service.api.dependencies import requires
from service.api.http_protocol import CONNECTION, TimeoutProtocol
from service.api.json_body import JsonRoute
from service.api.middleware import RequestContext
from service.api.openapi import answers
from service.api.schemas.base import ErrorEnvelope, RequestBody, ResponseBody
from service.api.schemas.fields import require_count
from service.config import Settings
from service.errors import ClientGone
from service.serving.kept_inputs import KeptInputs
from service.serving.model_manager import ModelManager
from service.serving.servable import Caller, Servable, Timings

T = TypeVar("T")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Coroutine[Any, Any, Response]])
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
_MAX_TIMEOUT_MS = 3_600_000
_CLIENT_TIMEOUT_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
_MILLISECONDS = ("tokenize_ms", "queue_ms", "inference_ms")
_HUNG_UP = "the caller hung up"
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ComputeCall:
    """One request to a route that computes, and its caller."""

    request: Request
    caller: Caller

    @classmethod
    def of(cls, request: Request, headers: Mapping[str, str], timeout_ms: int | None = None) -> ComputeCall:
        """The call of a request.

        Fairness is between keys, or between addresses where keys are not in use.
        """
        key, address = RequestContext.of(request).key, request.scope["client"]
        client = key.id if key.digest else address[0] if address else ""
        if timeout_ms is not None:
            return cls(request, Caller(client, time.monotonic() + timeout_ms / 1000))
        seconds = max(request.app.state.settings.default_timeout_s, _patience_of_client(headers))
        return cls(request, Caller(client, time.monotonic() + seconds, seconds))

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
        timing = b"tokenize;dur=%.2f, queue;dur=%.2f, inference;dur=%.2f" % tuple(facts[name] for name in _MILLISECONDS)
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


def facts_of(served: Servable, parts: Sequence[Timings]) -> dict[str, Any]:
    """What the log says of a computation: its model, sizes and times."""
    times = (1000 * max(seconds) for seconds in zip((0.0,) * 3, *map(_times, parts), strict=True))
    return {
        "model": served.label,
        "inputs": sum(rows.inputs for rows in parts),
        "tokens": sum(rows.token_count for rows in parts),
        "truncated": sum(rows.truncated for rows in parts),
        **{name: round(milliseconds, 3) for name, milliseconds in zip(_MILLISECONDS, times, strict=True)},
    }


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
            return min(float(given), _MAX_TIMEOUT_MS / 1000)
    return 0.0


def _times(rows: Timings) -> tuple[float, float, float]:
    return rows.tokenize_s, rows.queue_s, rows.inference_s


async def _cancel_when_disconnected(request: Request, working: asyncio.Task[Any] | None) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if working is not None:
        working.cancel()


async def _get_call(
    request: Request,
    timeout_ms: Annotated[
        int | None,
        Header(
            alias=TIMEOUT_HEADER,
            ge=1,
            le=_MAX_TIMEOUT_MS,
            description="milliseconds after which the answer is of no use",
        ),
        # A header cannot be null; without this the document would say that it can.
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MAX_TIMEOUT_MS}),
    ] = None,
) -> ComputeCall:
    return ComputeCall.of(request, request.headers, timeout_ms)


CallDep = Annotated[ComputeCall, Depends(_get_call)]
INFER = Depends(requires("infer"))


class RawRoute(APIRoute):
    """A route that computes and reads its body itself: `async (call: CallDep, **parameters of its path)`."""


class ComputeRoute(JsonRoute):
    """A route that `compute_route` made, so that the hot path can call it."""


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
