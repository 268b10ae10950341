"""The application: routes, errors, middleware and the OpenAPI document together."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

from service.api import error_responses
from service.api.content_encoding import ContentEncodingMiddleware
from service.api.head_requests import HeadMiddleware
from service.api.hot_path import HotPath
from service.api.image_urls import open_fetcher
from service.api.middleware import ContextMiddleware
from service.api.openapi import ABOUT, describe, write_document
from service.api.request_context import RequestChecks, RequestReports
from service.api.routes import (
    anomaly,
    azure,
    classify,
    cohere,
    console,
    detect,
    embeddings,
    feedback,
    file_check,
    files,
    forecast,
    health,
    held_out,
    huggingface,
    jobs,
    kept_inputs,
    model_repository,
    models,
    ocr,
    ollama,
    open_inference,
    ownership,
    preprocess,
    registry,
    rerank,
    tei,
    tokens,
)
from service.auth import Keyring
from service.config import Settings
from service.jobs.backend import JobBackend
from service.key_limits import KeyLimits
from service.metrics import Metrics
from service.serving.kept_inputs import KeptInputs
from service.serving.model_manager import ModelManager
from service.serving.token_ids import TokenDecoder

# Last come the paths that begin with a model's name.
_COMPUTING = (
    embeddings,
    classify,
    anomaly,
    forecast,
    rerank,
    preprocess,
    detect,
    ocr,
    tokens,
    tei,
    cohere,
    ollama,
    open_inference,
    azure,
    huggingface,
)

# FastAPI would ask OpenTelemetry's libraries at each request whether they are set up. Sonde has metrics of its own.
_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False}


def create_app(
    settings: Settings, manager: ModelManager, keyring: Keyring, metrics: Metrics, backend: JobBackend | None = None
) -> FastAPI:
    """The application over a model manager, which the caller opens and closes. Raises ConfigError."""
    app: FastAPI = FastAPIOffline(**ABOUT, redoc_url=None, telemetry=_NO_TELEMETRY)
    app.state.settings, app.state.metrics = settings, metrics
    app.state.manager, app.state.registry = manager, manager.registry
    app.state.jobs = backend or JobBackend.open(settings, lambda reason: metrics.quota_refusals.labels(reason).inc())
    app.state.jobs_migrated = False
    app.state.image_fetcher = open_fetcher(settings)
    app.state.kept_inputs = KeptInputs(settings.keep_inputs)
    app.state.token_decoder = TokenDecoder.of(settings)
    metrics.ready.set_function(lambda: manager.problem is None)
    metrics.keys_stale.set_function(lambda: keyring.are_stale)
    app.router.redirect_slashes = False  # the 404 redirects, and says why
    app.router.routes.extend(all_routes().routes)
    error_responses.install(app)
    # Each process counts for itself, and connections are shared out evenly.
    limits = KeyLimits(1 / max(settings.workers, settings.fronts, 1))
    reports = RequestReports(metrics, limits)
    checks = RequestChecks(settings, keyring, limits, manager.admit)
    app.state.checks, app.state.reports = checks, reports
    app.add_middleware(HeadMiddleware)
    app.add_middleware(ContentEncodingMiddleware)
    app.add_middleware(ContextMiddleware, settings=settings, checks=checks, reports=reports)
    routers = [module.router for module in _COMPUTING]
    # Before the middleware of FastAPI and Starlette, too, which the hot path does not need.
    app.middleware_stack = HotPath(app.build_middleware_stack(), routers, settings, checks, reports)
    describe(app, _document_of_routes, settings)
    return app


@cache
def all_routes() -> APIRouter:
    """All routes, shared by all applications: FastAPI takes a fifth of a second to build them."""
    made = APIRouter(strict_content_type=False)  # `service.api.json_body` checks it
    # Longer paths come first: /v1/models/{model} would match /v1/models/{model}/versions and …/owner too.
    operating = (
        ownership,
        held_out,
        registry,
        model_repository,
        models,
        file_check,
        files,
        feedback,
        kept_inputs,
        jobs,
        health,
        console,
    )
    for module in (*_COMPUTING, *operating):
        made.include_router(module.router)
    made.include_router(jobs.bare_router)
    for route in made.routes:  # else FastAPI builds them during the first request, on the event loop
        route.matches({"type": "http", "method": "GET", "path": "", "root_path": "", "headers": []})
    return made


@cache
def _document_of_routes() -> bytes:
    """The OpenAPI document of all routes, which a process builds once."""
    return write_document(all_routes())
