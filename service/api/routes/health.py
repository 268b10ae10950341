"""Routes for operators: liveness, readiness, version, metrics."""

from __future__ import annotations

import asyncio
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Header, Response
from pydantic import WithJsonSchema

from service.api.dependencies import ManagerDep, MetricsDep, requires
from service.api.openapi import READING
from service.api.schemas.models import Health, VersionObject
from service.version import VERSION

router = APIRouter(tags=["operations"])
_NOT_READY = {"model": Health, "description": "not ready; the reason is in the body"}


@router.get("/livez", include_in_schema=False)
@router.get("/health/live", response_model=Health, summary="Is the process alive?")
async def live() -> dict[str, object]:
    """200 while the process answers at all."""
    return {"status": "ok", "reason": None}


@router.get("/ping", include_in_schema=False)
@router.get("/readyz", include_in_schema=False)
@router.get("/healthz", include_in_schema=False)
@router.get("/health", response_model=Health, responses={503: _NOT_READY}, summary="As /health/ready")
@router.get("/health/ready", response_model=Health, responses={503: _NOT_READY}, summary="Does it take requests?")
async def ready(manager: ManagerDep) -> Response:
    """200 when the service takes requests, else 503 with the reason.

    It does once models are loaded and warm, while their devices answer and no shutdown has begun.
    """
    problem = manager.problem
    return _readiness({"status": "ok" if problem is None else "unavailable", "reason": problem}, problem)


@router.get("/v2/health/live", include_in_schema=False)
async def live_for_kserve() -> dict[str, bool]:
    """The liveness as KServe's client reads it."""
    return {"live": True}


@router.get("/v2/health/ready", include_in_schema=False)
async def ready_for_kserve(manager: ManagerDep) -> Response:
    """The readiness as KServe's client reads it."""
    problem = manager.problem
    return _readiness({"ready": problem is None, "reason": problem}, problem)


def _readiness(body: dict[str, object], problem: str | None) -> Response:
    response = Response(orjson.dumps(body), 200 if problem is None else 503, media_type="application/json")
    if problem is not None:
        response.headers["retry-after"] = "2"
    return response


@router.get("/version", response_model=VersionObject, summary="Version of Sonde")
async def sonde_version() -> dict[str, str]:
    """The version of the service, without a key."""
    return {"version": VERSION}


@router.get(
    "/metrics",
    dependencies=[Depends(requires("infer"))],
    responses={**READING, 200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
    response_class=Response,
    summary="Prometheus metrics",
)
async def metrics_page(
    metrics: MetricsDep, accept: Annotated[str, Header(), WithJsonSchema({"type": "string"})] = ""
) -> Response:
    """All metrics of all processes together: Prometheus' text format, or OpenMetrics where Accept asks for it."""
    content, media_type = await asyncio.to_thread(metrics.render, accept)
    return Response(content, headers={"content-type": media_type})
