"""Trained models: their versions, the version in service, and aliases."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from models.errors import ArtifactError, BadName, NotRegistered, RegistryConflict
from models.registry.names import ALIAS_PATTERN
from models.registry.registry import Registry
from models.training.report_labels import metric_label
from service.api.dependencies import ContextDep, ManagerDep, PrincipalDep, RegistryDep, requires
from service.api.json_body import JsonRoute
from service.api.openapi import READING, WRITING, errors
from service.api.schemas.registry import (
    Alias,
    AliasBody,
    AliasDeleted,
    AliasList,
    InService,
    Ledger,
    ModelDeleted,
    MoveBody,
    PromoteBody,
    TrainedList,
    VersionList,
)
from service.api.trained_names import not_found, parse_or_404, require_in_service, require_known
from service.errors import InvalidRequest, ModelNotFound
from service.jobs.principal import Principal
from service.jobs.records import JOB_PREFIX
from service.serving.model_manager import ModelManager
from service.serving.model_names import SENSORS

# These are plain functions, which FastAPI runs in a thread: they read and write files.
router = APIRouter(route_class=JsonRoute, tags=["registry"])
AliasPath = Annotated[str, Path(pattern=f"^{ALIAS_PATTERN}$", description="a name of your own")]
_READ = [Depends(requires("infer"))]
_WRITE = [Depends(requires("admin"))]
_READING = {**READING, **errors(404, 500)}
_REMOVING = {**READING, **errors(404, 409, 500, 507)}


@router.get(
    "/v1/trained_models",
    dependencies=_READ,
    responses={**READING, **errors(422, 500)},
    response_model=TrainedList,
    summary="Names of trained models",
)
def list_trained(
    registry: RegistryDep,
    after: Annotated[str | None, Query(description="the last name of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """All names that have versions, sorted, also those of which none is in service."""
    later = [name for name in registry.names() if after is None or name > after]
    data = [_trained_object(registry, name) for name in later[:limit]]
    return {"object": "list", "data": data, "has_more": len(later) > limit}


@router.get(
    "/v1/models/{model:path}/versions",
    dependencies=_READ,
    responses=_READING,
    response_model=VersionList,
    summary="A model's versions",
)
def versions(model: str, registry: RegistryDep, principal: PrincipalDep) -> dict[str, Any]:
    """All versions of a trained model with what their training measured, newest first.

    `job` is null for a job of another key.
    """
    name = require_known(registry, model)
    now = registry.current(name)
    current = None if now is None else now.version
    numbers = reversed(registry.versions(name))
    data = [_version_object(registry, name, number, current, principal) for number in numbers]
    return {"object": "list", "model": name, "generation": registry.generation(name), "data": data, "has_more": False}


@router.get(
    "/v1/models/{model:path}/ledger",
    dependencies=_READ,
    responses=_READING,
    response_model=Ledger,
    summary="A model's history",
)
def ledger(model: str, registry: RegistryDep, principal: PrincipalDep) -> dict[str, Any]:
    """A model's history, oldest first: each action with its key, time and reason."""
    name = parse_or_404(model)[0]
    entries = registry.ledger(name)
    if not entries:
        raise not_found(model)
    return {
        "object": "list",
        "model": name,
        "data": [_ledger_entry(entry, principal) for entry in entries],
        "has_more": False,
    }


@router.post(
    "/v1/models/{model:path}/promote",
    dependencies=_WRITE,
    responses=WRITING,
    response_model=InService,
    summary="Put a version in service",
)
def promote(
    model: str, body: PromoteBody, registry: RegistryDep, manager: ManagerDep, context: ContextDep
) -> dict[str, Any]:
    """Put a version in service, if it loads and passes its checks beside the current one.

    Failures count in `sonde_reload_failures`.
    """
    name = require_known(registry, model)
    if parse_or_404(model)[1] not in (None, body.version):
        raise InvalidRequest.at("version", f"expected the version of {model}, got {body.version}")
    served = manager.watcher.generation(name)
    why, expected = body.why, body.expected_generation
    registry.promote(name, body.version, by=context.key.id, why=why, expected=expected, served=served)
    return _announce_move(registry, manager, name)


@router.post(
    "/v1/models/{model:path}/rollback",
    dependencies=_WRITE,
    responses=WRITING,
    response_model=InService,
    summary="Put the one before back",
)
def rollback(
    model: str, registry: RegistryDep, manager: ManagerDep, context: ContextDep, body: MoveBody | None = None
) -> dict[str, Any]:
    """The version that served before serves again. The body is optional."""
    name = require_in_service(registry, model)
    served = manager.watcher.generation(name)
    registry.rollback(name, by=context.key.id, why=body.why if body else "", served=served)
    return _announce_move(registry, manager, name)


@router.post(
    "/v1/models/{model:path}/withdraw",
    dependencies=_WRITE,
    responses=WRITING,
    response_model=InService,
    summary="Take out of service",
)
def withdraw(
    model: str, registry: RegistryDep, manager: ManagerDep, context: ContextDep, body: MoveBody | None = None
) -> dict[str, Any]:
    """No version serves under this name any more.

    Promote or rollback puts one back. The body is optional.
    """
    name = require_in_service(registry, model)
    served = manager.watcher.generation(name)
    registry.withdraw(name, by=context.key.id, why=body.why if body else "", served=served)
    return _announce_move(registry, manager, name)


@router.delete(
    "/v1/models/{model:path}",
    dependencies=_WRITE,
    responses=_REMOVING,
    response_model=ModelDeleted,
    summary="Delete a trained model",
)
def delete(model: str, registry: RegistryDep, manager: ManagerDep, context: ContextDep) -> dict[str, Any]:
    """`ft:…:v3` deletes that version, a name without version all of them.

    None of them may be the target of an alias. A version in service is taken out of it first if it is the only one.
    """
    name, version = parse_or_404(model)
    require_known(registry, name)
    served = manager.watcher.generation(name)
    if version is None:
        registry.delete_all(name, by=context.key.id, served=served)
    else:
        registry.delete(name, version, by=context.key.id, served=served)
    manager.watcher.poke()
    return {"id": model, "object": "model", "deleted": True}


@router.get(
    "/v1/aliases",
    dependencies=_READ,
    responses={**READING, **errors(500)},
    response_model=AliasList,
    summary="List aliases",
)
def list_aliases(registry: RegistryDep) -> dict[str, Any]:
    """Names that stand for trained models, sorted."""
    data = [{"id": alias, "object": "alias", "target": target} for alias, target in sorted(registry.aliases().items())]
    return {"object": "list", "data": data, "has_more": False}


@router.put("/v1/aliases/{alias}", dependencies=_WRITE, responses=WRITING, response_model=Alias, summary="Set an alias")
def set_alias(alias: AliasPath, body: AliasBody, registry: RegistryDep, manager: ManagerDep) -> dict[str, Any]:
    """Point an alias at a trained model, or at one version of it.

    An existing alias is replaced.
    """
    if alias == SENSORS:
        raise RegistryConflict(f"jobs call the base of sensor models {SENSORS!r}: take another name", param="alias")
    if any(alias == served.metadata.name for served in manager.all()):
        raise RegistryConflict(f"{alias!r} is a model's own name here", param="alias")
    try:
        registry.set_alias(alias, body.target, served=manager.watcher.aliases)
    except (NotRegistered, BadName) as error:
        raise ModelNotFound(error.message, param="target") from error
    manager.watcher.poke()
    return {"id": alias, "object": "alias", "target": body.target}


@router.delete(
    "/v1/aliases/{alias}",
    dependencies=_WRITE,
    responses={**READING, **errors(404, 422, 500, 507)},
    response_model=AliasDeleted,
    summary="Remove an alias",
)
def remove_alias(alias: AliasPath, registry: RegistryDep, manager: ManagerDep) -> dict[str, Any]:
    """Forget an alias; the model stays."""
    registry.remove_alias(alias)
    manager.watcher.poke()
    return {"id": alias, "object": "alias", "deleted": True}


def _announce_move(registry: Registry, manager: ModelManager, name: str) -> dict[str, Any]:
    """Have this process follow the registry at once; return the pointer."""
    manager.watcher.poke()
    return {"object": "model.pointer", "model": name, **_pointer(registry, name)}


def _trained_object(registry: Registry, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model.name", "versions": registry.versions(name), **_pointer(registry, name)}


def _pointer(registry: Registry, name: str) -> dict[str, int | None]:
    """The version in service, None without one, and the number of changes so far."""
    now = registry.current(name)
    return {
        "version": now.version if now else None,
        "generation": registry.generation(name),
        "previous": registry.previous(name),
    }


def _version_object(
    registry: Registry, name: str, version: int, current: int | None, principal: Principal
) -> dict[str, Any]:
    about: dict[str, Any] = {
        "id": f"{name}:v{version}",
        "object": "model.version",
        "version": version,
        "in_service": version == current,
        **dict.fromkeys(("created", "task", "base", "base_version", "encoder", "job", "owner", "error")),
        "labels": [],
        "metrics": {},
        "metric_labels": {},
    }
    try:
        manifest = registry.manifest(name, version)
    except ArtifactError as error:
        return {**about, "error": error.message}
    for field in ("created", "task", "base", "base_version", "encoder", "owner", "metrics"):
        about[field] = getattr(manifest, field)
    job = manifest.job if manifest.job.startswith(JOB_PREFIX) and principal.may_see(manifest.owner) else None
    labels = {metric: metric_label(metric, manifest.task) for metric in manifest.metrics}
    return {**about, "labels": list(manifest.labels), "metric_labels": labels, "job": job}


def _ledger_entry(entry: dict[str, Any], principal: Principal) -> dict[str, Any]:
    """An entry without the id of a job that the caller does not see; `by` is then the job's owner."""
    owner = entry.get("owner")
    by_job = str(entry["by"]).startswith(JOB_PREFIX)
    return {**entry, "by": owner} if by_job and not principal.may_see(owner) else entry
