"""The application: routes, errors, context, documents, put together."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

from service.api import anomaly, catalog, classify, embeddings, feedback, files, forecast, jobs, probes, problems, registry, rerank, tei
from service.api.context import ContextMiddleware
from service.api.direct import DirectMiddleware
from service.api.documents import describe
from service.auth import Keyring
from service.config import Settings
from service.engine.hub import Hub
from service.jobs.desk import Desk
from service.metrics import Metrics

_COMPUTING = (embeddings, classify, anomaly, forecast, rerank, tei)
_DESCRIPTION = "Embeddings, classification, anomaly scores and rerank from pretrained PyTorch models."


def create_app(settings: Settings, hub: Hub, keyring: Keyring, metrics: Metrics, desk: Desk | None = None) -> FastAPI:
    """An application over a hub that somebody else opens and closes."""
    app: FastAPI = FastAPIOffline(title="Sonde", version=version("sonde"), description=_DESCRIPTION, redoc_url=None)
    app.state.settings, app.state.hub, app.state.metrics, app.state.registry = settings, hub, metrics, hub.registry
    app.state.jobs, app.state.jobs_migrated = desk or Desk.open(settings), False
    metrics.ready.set_function(lambda: hub.problem is None)
    app.router.routes.extend(_routes().routes)
    problems.install(app)
    app.add_middleware(DirectMiddleware, routers=[module.router for module in _COMPUTING])
    app.add_middleware(ContextMiddleware, keyring=keyring, metrics=metrics, admit=hub.admit)
    describe(app, settings)
    return app


@cache
def _routes() -> APIRouter:
    """All routes. They hold nothing of an application, and FastAPI takes a fifth of a second to work them out."""
    made = APIRouter()
    # The registry before the catalog, whose /v1/models/{model} would take /v1/models/{model}/versions for a model's name.
    for module in (*_COMPUTING, registry, catalog, files, feedback, jobs, probes):
        made.include_router(module.router)
    made.include_router(jobs.bare_router)
    return made
