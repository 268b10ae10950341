"""FastAPI dependencies: what the application holds, and the scope that a route needs.

All of them are coroutines: FastAPI would run each plain function in a thread, which costs more than the function. None
depends on another: FastAPI solves every dependency anew for every request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request

from models.registry.registry import Registry
from service.api.middleware import RequestContext
from service.auth import Scope
from service.config import Settings
from service.jobs.backend import JobBackend
from service.metrics import Metrics
from service.serving.model_manager import ModelManager


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
    """Files and fine-tuning jobs.

    The first use creates the tables, so that a database which is down at the start stops nothing else.
    """
    jobs: JobBackend = request.app.state.jobs
    if not request.app.state.jobs_migrated:
        await asyncio.to_thread(jobs.store.migrate)
        request.app.state.jobs_migrated = True
    return jobs


async def get_registry(request: Request) -> Registry:
    """All trained models, in service or not."""
    registry: Registry = request.app.state.registry
    return registry


async def get_context(request: Request) -> RequestContext:
    """The context that the middleware gave this request."""
    return RequestContext.of(request)


def requires(scope: Scope) -> Callable[..., Coroutine[Any, Any, None]]:
    """A dependency that raises ScopeDenied for keys without `scope`."""

    async def check(request: Request) -> None:
        RequestContext.of(request).require_scope(scope)

    return check


ManagerDep = Annotated[ModelManager, Depends(get_manager)]
SettingsDep = Annotated[Settings, Depends(get_settings)]
JobsDep = Annotated[JobBackend, Depends(get_jobs)]
RegistryDep = Annotated[Registry, Depends(get_registry)]
ContextDep = Annotated[RequestContext, Depends(get_context)]
MetricsDep = Annotated[Metrics, Depends(get_metrics)]
