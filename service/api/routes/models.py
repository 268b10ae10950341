"""Models in service with their contracts, and the service's own settings."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool

from service.api.dependencies import ManagerDep, SettingsDep, requires
from service.api.openapi import READING, errors
from service.api.schemas.models import Info, ModelList, OneModel
from service.serving.fine_tuned import FineTunedModel
from service.serving.fine_tuned_images import FineTunedImages
from service.serving.model_manager import ModelManager
from service.serving.program_version import ProgramVersion
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Servable
from service.version import VERSION

router = APIRouter(dependencies=[Depends(requires("infer"))])
_STARTED = int(time.time())


@router.get("/models", include_in_schema=False)
@router.get(
    "/v1/models", responses={**READING, **errors(503)}, response_model=ModelList, tags=["OpenAI"], summary="List models"
)
async def list_models(manager: ManagerDep) -> dict[str, Any]:
    """All models in service: those of the settings first, then the trained ones.

    A trained model is there by its name, and by its version's full name, as its job gives it.
    """
    manager.require_ready()
    data = await describe_all(manager)
    versions = [{**model, "id": f"{model['id']}:{model['version']}"} for model in data if model["base"] is not None]
    return {"object": "list", "data": data + versions, "models": [_for_cohere(model) for model in data]}


@router.get("/models/{model:path}", include_in_schema=False)
@router.get(
    "/v1/models/{model:path}",
    responses={**READING, **errors(404, 422, 503)},
    response_model=OneModel,
    tags=["OpenAI"],
    summary="One model",
)
async def get_model(model: str, manager: ManagerDep) -> dict[str, Any]:
    """A model's contract: shapes, dtypes, its device and why; for a trained one, its metrics."""
    served = await manager.resolve(model)
    described = await run_in_threadpool(describe, served, manager)
    full_name = described["base"] is not None and model == served.label
    return described | _for_cohere(described) | ({"id": model, "name": model} if full_name else {})


@router.get(
    "/info",
    responses={**READING, **errors(503)},
    response_model=Info,
    tags=["text-embeddings-inference"],
    summary="The service",
)
async def info(manager: ManagerDep, settings: SettingsDep) -> dict[str, Any]:
    """The first model as TEI describes it, and all models with device, dtype and reason."""
    first = manager.find(None).metadata
    return {
        "model_id": first.name,
        "model_sha": first.version,
        "model_dtype": first.dtype,
        "model_type": {first.task: {}},
        "max_input_length": first.max_tokens,
        "max_batch_tokens": manager.engines.limits(first).max_tokens,
        "max_batch_requests": settings.max_batch_items,
        "max_client_batch_size": settings.max_inputs,
        "max_request_tokens": settings.max_request_tokens,
        "max_queued_tokens": settings.max_queued_tokens,
        "auto_truncate": True,
        "version": VERSION,
        "models": await describe_all(manager),
    }


def _for_cohere(model: dict[str, Any]) -> dict[str, Any]:
    """A model as Cohere's clients read it."""
    endpoints = {"embedding": ["embed", "rerank"], "rerank": ["rerank"], "classification": ["classify"]}
    return {
        "name": model["id"],
        "endpoints": endpoints.get(model["task"], []),
        "finetuned": model["base"] is not None,
        "context_length": model["max_tokens"],
    }


async def describe_all(manager: ModelManager) -> list[dict[str, Any]]:
    """Every model in service."""
    return await run_in_threadpool(lambda: [describe(served, manager) for served in manager.all()])


def describe(served: Servable, manager: ModelManager) -> dict[str, Any]:
    """OpenAI's model object with our fields. Reads the disk for a trained model."""
    metadata = served.metadata
    manifest = (
        served.manifest
        if isinstance(served, FineTunedModel | FineTunedImages | ServedSensor | ProgramVersion)
        else None
    )
    return {
        "id": metadata.name,
        "object": "model",
        "created": manifest.created if manifest else _STARTED,
        "owned_by": "sonde",
        "version": metadata.version,
        "task": metadata.task,
        "origin": metadata.origin,
        "architecture": metadata.architecture,
        "device": metadata.device,
        "dtype": metadata.dtype,
        "reason": metadata.reason,
        "forward": metadata.forward,
        "batches": metadata.batches,
        "one_by_one": metadata.one_by_one,
        "dimensions": metadata.width if metadata.task == "embedding" else None,
        "max_tokens": metadata.max_tokens,
        "input_limits": metadata.input_limits,
        "labels": list(metadata.labels),
        "prompts": metadata.prompts,
        "notes": [*metadata.notes, *_registry_notes(served, manager)],
        "signature": metadata.signature(),
        "base": manifest.base if manifest else None,
        "versions": manager.registry.versions(manifest.name) if manifest else [],
        "metrics": manifest.metrics if manifest else {},
    }


def _registry_notes(served: Servable, manager: ModelManager) -> list[str]:
    """A note where the registry names another version, or none that can be read."""
    problem = manager.watcher.problem(served.metadata.name)
    return [] if problem is None else [f"the registry cannot be followed, this version goes on serving: {problem}"]
