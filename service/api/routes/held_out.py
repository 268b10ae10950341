"""The held-out rows bound to a trained model's name."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends

from models.errors import RegistryError
from models.registry.held_out import HeldOut
from models.registry.registry import Registry
from service.api.dependencies import ContextDep, JobsDep, RegistryDep, SettingsDep, requires
from service.api.json_body import JsonRoute
from service.api.openapi import READING, WRITING, errors
from service.api.schemas.registry import BoundRows, HeldOutBody, HeldOutDeleted
from service.api.trained_names import not_found, require_known, require_published
from service.auth import Key
from service.errors import ScopeDenied
from service.jobs.held_out_binding import bind, find_upload
from service.jobs.memory_watch import trainer_limit_bytes

# Plain functions run in a thread of FastAPI's: they read and write files.
router = APIRouter(prefix="/v1/models/{model:path}/held_out", route_class=JsonRoute, tags=["registry"])
_TRAIN = [Depends(requires("train"))]
_READING = {**READING, **errors(404)}


@router.get(
    "",
    dependencies=_TRAIN,
    responses=_READING,
    response_model=BoundRows,
    summary="The rows that judge a name's versions",
)
def held_out(model: str, registry: RegistryDep) -> dict[str, Any]:
    """The file that is bound to a name: its hash and its rows, which key bound it and when."""
    name = require_published(registry, model)
    found = registry.held_out(name)
    if found is None:
        raise not_found(f"{name}/held_out")
    return _bound_object(name, found)


@router.put(
    "",
    dependencies=_TRAIN,
    responses={**WRITING, **errors(503)},
    response_model=BoundRows,
    summary="Bind rows that judge a name's versions",
)
async def bind_held_out(
    model: str, body: HeldOutBody, registry: RegistryDep, jobs: JobsDep, context: ContextDep, settings: SettingsDep
) -> dict[str, Any]:
    """Copy an uploaded file; every later version is measured on its rows, and so is the version in service.

    The key owns the name, or is an admin's. Only an admin's replaces rows that another key has bound.
    """
    name = await asyncio.to_thread(_require_owned, registry, model, context.key)
    stored, path = await jobs.run(find_upload, jobs.files, body.file)
    bound = await asyncio.to_thread(
        bind,
        registry,
        name,
        stored,
        path,
        body.columns,
        by=context.key.id,
        permit=partial(_require_owner, registry, name, context.key),
        max_memory_bytes=trainer_limit_bytes(settings.max_trainer_memory),
    )
    return _bound_object(name, bound)


@router.delete(
    "",
    dependencies=_TRAIN,
    responses={**_READING, **errors(507)},
    response_model=HeldOutDeleted,
    summary="Remove the rows that judge a name's versions",
)
def unbind_held_out(model: str, registry: RegistryDep, context: ContextDep) -> dict[str, Any]:
    """Remove the binding and the copy of its rows. The key owns the name and bound them, or is an admin's."""
    name = require_published(registry, model)
    permit = partial(_require_owner, registry, name, context.key)
    registry.unbind_held_out(name, by=context.key.id, permit=permit)
    return {"object": "model.held_out", "model": name, "deleted": True}


def _require_owned(registry: Registry, model: str, key: Key) -> str:
    """The name in a path. Raises ModelNotFound and ScopeDenied."""
    name = require_known(registry, model)
    _require_owner(registry, name, key)
    return name


def _require_owner(registry: Registry, name: str, key: Key) -> None:
    """Raise ScopeDenied unless a key owns the name and all that is bound to it, or is an admin's."""
    if key.allows("admin"):
        return
    ownership = registry.ownership(name)
    if ownership is None or ownership.owner != key.id:
        raise ScopeDenied(f"{key.id} does not own {name}: its owner or an admin binds rows to it")
    try:
        bound = registry.held_out(name)
    except RegistryError as error:
        raise ScopeDenied(f"the rows bound to {name} cannot be read: an admin binds or removes them") from error
    if bound is not None and bound.by != key.id:
        raise ScopeDenied(f"{bound.by} bound the rows of {name}: an admin replaces or removes them")


def _bound_object(name: str, held_out: HeldOut) -> dict[str, Any]:
    return {
        "object": "model.held_out",
        "model": name,
        "file": held_out.file,
        "sha256": held_out.sha256,
        "rows": held_out.rows,
        "task": held_out.task,
        "by": held_out.by,
        "at": held_out.at,
    }
