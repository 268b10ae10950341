"""The owner of a trained model's name, and the keys to which an admin granted it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from models.registry.ownership import Ownership
from service.api.dependencies import ContextDep, RegistryDep, requires
from service.api.json_body import JsonRoute
from service.api.openapi import READING, WRITING, errors
from service.api.schemas.registry import KEY_PATTERN, OwnerBody, Owners
from service.api.trained_names import require_published

# These are plain functions, which FastAPI runs in a thread: they read and write files.
router = APIRouter(prefix="/v1/models/{model:path}", route_class=JsonRoute, tags=["registry"])
KeyPath = Annotated[str, Path(pattern=KEY_PATTERN, description="the id of an API key")]
_READ = [Depends(requires("train"))]
_WRITE = [Depends(requires("admin"))]
_REMOVING = {**READING, **errors(404, 422, 507)}


@router.get(
    "/owner", dependencies=_READ, responses={**READING, **errors(404)}, response_model=Owners, summary="A name's owner"
)
def owner(model: str, registry: RegistryDep) -> dict[str, Any]:
    """The key that owns a name, and the keys to which it was granted: their jobs' versions are promoted."""
    name = require_published(registry, model)
    return _owners_object(name, registry.ownership(name) or Ownership())


@router.put("/owner", dependencies=_WRITE, responses=WRITING, response_model=Owners, summary="Give a name to a key")
def set_owner(model: str, body: OwnerBody, registry: RegistryDep, context: ContextDep) -> dict[str, Any]:
    """Give a name to a key. The grants of the owner before end."""
    name = require_published(registry, model)
    return _owners_object(name, registry.set_owner(name, body.owner, by=context.key.id))


@router.delete(
    "/owner", dependencies=_WRITE, responses=_REMOVING, response_model=Owners, summary="Leave a name without an owner"
)
def remove_owner(model: str, registry: RegistryDep, context: ContextDep) -> dict[str, Any]:
    """Remove the owner and all grants: only jobs of admin keys are promoted then.

    A name without versions goes to the key that next publishes one.
    """
    name = require_published(registry, model)
    return _owners_object(name, registry.remove_owner(name, by=context.key.id))


@router.put("/grants/{key}", dependencies=_WRITE, responses=WRITING, response_model=Owners, summary="Grant a name")
def grant(model: str, key: KeyPath, registry: RegistryDep, context: ContextDep) -> dict[str, Any]:
    """Have the versions of a key's jobs promoted under a name that it does not own."""
    name = require_published(registry, model)
    return _owners_object(name, registry.grant(name, key, by=context.key.id))


@router.delete(
    "/grants/{key}", dependencies=_WRITE, responses=_REMOVING, response_model=Owners, summary="Take a grant back"
)
def revoke_grant(model: str, key: KeyPath, registry: RegistryDep, context: ContextDep) -> dict[str, Any]:
    """Take a grant back. It counts for jobs that have not published yet."""
    name = require_published(registry, model)
    return _owners_object(name, registry.revoke_grant(name, key, by=context.key.id))


def _owners_object(name: str, ownership: Ownership) -> dict[str, Any]:
    return {"object": "model.owner", "model": name, "owner": ownership.owner, "grants": list(ownership.grants)}
