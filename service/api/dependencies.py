"""FastAPI dependencies: what the application holds, and the scope that a route needs.

All of them are coroutines: FastAPI would run each plain function in a thread, which costs more than the function. None
depends on another: FastAPI solves every dependency anew for every request.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request

from models.registry.registry import Registry
from service.api.request_context import RequestContext
from service.auth import Scope
from service.config import Settings
from service.jobs.backend import JobBackend
from service.jobs.principal import Principal
from service.metrics import Metrics
from service.serving.kept_inputs import KeptInputs
from service.serving.model_manager import ModelManager


def _state(name: str) -> Any:
    """A dependency on what `create_app` stored in the application's state."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


async def _get_principal(request: Request) -> Principal:
    """Who asks. With `--shared`, every key sees what the others own, as admin keys always do."""
    return _caller(request)


async def _get_jobs(request: Request) -> JobBackend:
    """Files, feedback and fine-tuning jobs as the caller sees them; their calls may take a limited time in one request.

    The first use creates the tables, so that a database which is down at the start stops nothing else.
    """
    backend: JobBackend = request.app.state.jobs
    jobs = backend.for_request()
    if not request.app.state.jobs_migrated:
        await jobs.run(jobs.migrate)
        request.app.state.jobs_migrated = True
    return jobs.on_behalf_of(_caller(request))


def _caller(request: Request) -> Principal:
    key, settings = RequestContext.of(request).key, request.app.state.settings
    return Principal(key.id, sees_all=settings.shared or key.allows("admin"))


async def _get_context(request: Request) -> RequestContext:
    return RequestContext.of(request)


def requires(scope: Scope) -> Callable[..., Coroutine[Any, Any, None]]:
    """A dependency that raises ScopeDenied for keys without `scope`."""

    async def check(request: Request) -> None:
        RequestContext.of(request).require_scope(scope)

    return check


ManagerDep = Annotated[ModelManager, _state("manager")]
SettingsDep = Annotated[Settings, _state("settings")]
JobsDep = Annotated[JobBackend, Depends(_get_jobs)]
RegistryDep = Annotated[Registry, _state("registry")]
PrincipalDep = Annotated[Principal, Depends(_get_principal)]
ContextDep = Annotated[RequestContext, Depends(_get_context)]
KeptInputsDep = Annotated[KeptInputs, _state("kept_inputs")]
MetricsDep = Annotated[Metrics, _state("metrics")]
