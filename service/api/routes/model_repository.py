"""Triton's model repository, over the models of the settings and the registry of trained models."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Depends, Request, Response

from models.errors import RegistryConflict
from models.registry.registry import Registry
from service.api.compute_route import INFER
from service.api.dependencies import ContextDep, ManagerDep, RegistryDep, SettingsDep, requires
from service.api.json_body import read_bytes
from service.api.schemas.open_inference import IndexBody, LoadBody, UnloadBody
from service.api.tensors.data import decode_body
from service.api.trained_names import parse_or_404, require_in_service, require_known
from service.serving.model_manager import ModelManager

router = APIRouter(tags=["Open Inference Protocol"], include_in_schema=False)
_ADMIN = Depends(requires("admin"))
_WHY = "by the model repository's route"


@router.post("/v2/repository/index", dependencies=[INFER])
async def index(
    request: Request, manager: ManagerDep, registry: RegistryDep, settings: SettingsDep
) -> list[dict[str, str]]:
    """All models: those that are ready with their version, and trained ones that are not with the reason."""
    body = decode_body(await _read(request, settings.max_body_bytes), IndexBody)
    return await asyncio.to_thread(model_index, manager, registry, ready=body.ready)


@router.post("/v2/repository/models/{model:path}/load", dependencies=[_ADMIN])
async def load(
    model: str, request: Request, manager: ManagerDep, registry: RegistryDep, settings: SettingsDep, context: ContextDep
) -> Response:
    """See `load_model`."""
    decode_body(await _read(request, settings.max_body_bytes), LoadBody)
    await load_model(model, manager, registry, by=context.key.id)
    return Response()


@router.post("/v2/repository/models/{model:path}/unload", dependencies=[_ADMIN])
async def unload(
    model: str, request: Request, manager: ManagerDep, registry: RegistryDep, settings: SettingsDep, context: ContextDep
) -> Response:
    """See `unload_model`."""
    decode_body(await _read(request, settings.max_body_bytes), UnloadBody)
    await asyncio.to_thread(unload_model, model, manager, registry, by=context.key.id)
    return Response()


def model_index(manager: ModelManager, registry: Registry, *, ready: bool) -> list[dict[str, str]]:
    """The name, version, state and reason of each model. Reads the registry."""
    entries = [_entry(served.metadata.name, served.metadata.version, "READY") for served in manager.all()]
    serving = {entry["name"] for entry in entries}
    without = [] if ready else [name for name in registry.names() if name not in serving]
    reasons = {name: manager.watcher.problem(name) or "no version is in service" for name in without}
    return entries + [_entry(name, "", "UNAVAILABLE", reason) for name, reason in reasons.items()]


async def load_model(model: str, manager: ModelManager, registry: Registry, *, by: str) -> None:
    """Load a version that the name has, or put the version back that a trained model served last.

    A model in service is left as it is. Raises RegistryConflict for a trained model that never served, and Unservable.
    """
    if not _is_of_settings(model, manager) and parse_or_404(model)[1] is None:
        await asyncio.to_thread(_put_back, model, manager, registry, by)
    await manager.resolve(model)


def unload_model(model: str, manager: ModelManager, registry: Registry, *, by: str) -> None:
    """Take a trained model out of service. Raises RegistryConflict for a model of the settings."""
    if _is_of_settings(model, manager):
        about = f"{model} is a model of the settings, which serves as long as the process runs"
        raise RegistryConflict(f"{about}: start Sonde without it", param="model")
    name = require_in_service(registry, model)
    registry.withdraw(name, by=by, why=_WHY, served=manager.watcher.generation(name))
    manager.watcher.look(time.monotonic())


def _put_back(model: str, manager: ModelManager, registry: Registry, by: str) -> None:
    name = require_known(registry, model)
    if registry.current(name) is not None:
        return
    if registry.previous(name) is None:
        about = f"{name} has never served: promote a version with POST /v1/models/{name}/promote"
        raise RegistryConflict(f"{about}, or load one as {name}:v1", param="model")
    registry.rollback(name, by=by, why=_WHY, served=manager.watcher.generation(name))
    manager.watcher.look(time.monotonic())


def _is_of_settings(model: str, manager: ModelManager) -> bool:
    return any(model in (served.metadata.name, served.label) for served in manager.configured())


async def _read(request: Request, most: int) -> bytes:
    """The body, by default an empty object."""
    return await read_bytes(request.receive, request.headers, most) or b"{}"


def _entry(name: str, version: str, state: str, reason: str = "") -> dict[str, str]:
    return {"name": name, "version": version, "state": state, "reason": reason}
