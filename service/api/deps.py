"""What routes are given: the hub, the caller, and a way to stop when the caller has gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from pydantic import WithJsonSchema

from models.registry.registry import Registry
from service.api.middleware import RequestContext
from service.auth import Scope
from service.config import Settings
from service.errors import ClientGone, ScopeDenied
from service.jobs.backend import JobBackend
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from service.serving.servable import Caller

T = TypeVar("T")
_MAX_TIMEOUT_MS = 3_600_000
TIMEOUT_HEADER = "X-Request-Timeout-Ms"


# All of these are coroutines: FastAPI would send plain functions through a thread each, which costs more than they do.
# None depends on another: FastAPI solves every one anew for every request, which costs more than they do as well.


async def get_manager(request: Request) -> ModelManager:
    """The models in service."""
    manager: ModelManager = request.app.state.manager
    return manager


async def get_settings(request: Request) -> Settings:
    """The settings in force."""
    settings: Settings = request.app.state.settings
    return settings


async def get_metrics(request: Request) -> Metrics:
    """The metrics of this process."""
    metrics: Metrics = request.app.state.metrics
    return metrics


async def get_jobs(request: Request) -> JobBackend:
    """Files and fine-tuning jobs; the tables are made with the first use, so that a database which is away stops
    nothing else.
    """
    jobs: JobBackend = request.app.state.jobs
    if not request.app.state.jobs_migrated:
        await asyncio.to_thread(jobs.store.migrate)
        request.app.state.jobs_migrated = True
    return jobs


async def get_registry(request: Request) -> Registry:
    """The trained models there are, in service or not."""
    registry: Registry = request.app.state.registry
    return registry


async def get_context(request: Request) -> RequestContext:
    """What is known of this request."""
    return context_of(request)


def context_of(request: Request) -> RequestContext:
    """The context that the middleware gave this request."""
    context: RequestContext = request.scope["state"]["context"]
    return context


def requires(scope: Scope) -> Callable[..., Coroutine[Any, Any, None]]:
    """A dependency that lets only keys with `scope` pass."""

    async def check(request: Request) -> None:
        require_scope(request, scope)

    return check


def require_scope(request: Request, scope: Scope) -> None:
    """Raise ScopeDenied unless the caller's key has the scope."""
    key = context_of(request).key
    if not key.allows(scope):
        raise ScopeDenied(f"this needs a key with scope {scope!r}; {key.id} has: {', '.join(key.scopes)}")


async def get_caller(
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
) -> Caller:
    """See `caller_of`."""
    return caller_of(request, timeout_ms)


def caller_of(request: Request, timeout_ms: int | None) -> Caller:
    """Who asks, and until when. Fairness is between keys, or between addresses where there are none."""
    key = context_of(request).key
    client = key.id if key.digest else request.client.host if request.client else ""
    seconds = timeout_ms / 1000 if timeout_ms is not None else request.app.state.settings.default_timeout_s
    return Caller(client, time.monotonic() + seconds)


# Of every router whose routes compute.
INFER = Depends(requires("infer"))
ManagerDep = Annotated[ModelManager, Depends(get_manager)]
SettingsDep = Annotated[Settings, Depends(get_settings)]
JobsDep = Annotated[JobBackend, Depends(get_jobs)]
RegistryDep = Annotated[Registry, Depends(get_registry)]
ContextDep = Annotated[RequestContext, Depends(get_context)]
MetricsDep = Annotated[Metrics, Depends(get_metrics)]
CallerDep = Annotated[Caller, Depends(get_caller)]


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the caller hangs up. Raises ClientGone then."""
    watching = asyncio.ensure_future(_cancel_when_disconnected(request, asyncio.current_task()))
    try:
        return await work
    except asyncio.CancelledError:
        if watching.done():
            raise ClientGone("the caller hung up") from None
        raise
    finally:
        watching.cancel()


async def _cancel_when_disconnected(request: Request, working: asyncio.Task[Any] | None) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if working is not None:
        working.cancel()
