"""The application: routes, errors, middleware and the OpenAPI document together."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

from service.api import error_responses
from service.api.content_encoding import ContentEncodingMiddleware
from service.api.head import HeadMiddleware
from service.api.hot_path import HotPath
from service.api.middleware import ContextMiddleware, RequestReports
from service.api.openapi import describe
from service.api.routes import (
    anomaly,
    azure,
    classify,
    cohere,
    embeddings,
    feedback,
    files,
    forecast,
    health,
    held_out,
    huggingface,
    jobs,
    models,
    ollama,
    ownership,
    registry,
    rerank,
    tei,
    tokens,
)
from service.auth import Keyring
from service.config import Settings
from service.jobs.backend import JobBackend
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from service.serving.token_ids import TokenDecoder

# Last come the paths that begin with a model's name.
_COMPUTING = (embeddings, classify, anomaly, forecast, rerank, tokens, tei, cohere, ollama, azure, huggingface)
_DESCRIPTION = "Embeddings, classification, anomaly scores and rerank from pretrained PyTorch models."

# FastAPI would ask OpenTelemetry's libraries at each request whether they are set up. Sonde has metrics of its own.
_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False}


def create_app(
    settings: Settings, manager: ModelManager, keyring: Keyring, metrics: Metrics, backend: JobBackend | None = None
) -> FastAPI:
    """The application over a model manager, which the caller opens and closes. Raises ConfigError."""
    about = {"title": "Sonde", "version": version("sonde"), "description": _DESCRIPTION}
    app: FastAPI = FastAPIOffline(**about, redoc_url=None, telemetry=_NO_TELEMETRY)
    app.state.settings, app.state.metrics = settings, metrics
    app.state.manager, app.state.registry = manager, manager.registry
    app.state.jobs = backend or JobBackend.open(settings, lambda reason: metrics.quota_refusals.labels(reason).inc())
    app.state.jobs_migrated = False
    app.state.token_decoder = TokenDecoder.of(settings)
    metrics.ready.set_function(lambda: manager.problem is None)
    metrics.keys_stale.set_function(lambda: keyring.are_stale)
    app.router.redirect_slashes = False  # the 404 redirects, and says why
    app.router.routes.extend(_routes().routes)
    error_responses.install(app)
    reports = RequestReports(metrics)
    checks: dict[str, Any] = {"settings": settings, "keyring": keyring, "reports": reports, "admit": manager.admit}
    app.add_middleware(HeadMiddleware)
    app.add_middleware(ContentEncodingMiddleware)
    app.add_middleware(ContextMiddleware, **checks)
    app.add_middleware(HotPath, routers=[module.router for module in _COMPUTING], **checks)
    describe(app, settings)
    return app


@cache
def _routes() -> APIRouter:
    """All routes, shared by all applications: FastAPI takes a fifth of a second to build them."""
    made = APIRouter()
    # Longer paths come first: /v1/models/{model} would match /v1/models/{model}/versions and …/owner too.
    for module in (*_COMPUTING, ownership, held_out, registry, models, files, feedback, jobs, health):
        made.include_router(module.router)
    made.include_router(jobs.bare_router)
    return made
