"""Trained models' names in paths."""

from __future__ import annotations

from models.errors import BadName, RegistryConflict
from models.registry.names import parse_name
from models.registry.registry import Registry
from service.errors import ModelNotFound


def parse_or_404(model: str) -> tuple[str, int | None]:
    """The name and version in a path.

    A malformed name raises ModelNotFound, as any unknown one.
    """
    try:
        return parse_name(model)
    except BadName:
        raise not_found(model) from None


def require_known(registry: Registry, model: str) -> str:
    """The name in a path, with or without one of its versions. Raises ModelNotFound unless there is such a version."""
    name, version = parse_or_404(model)
    versions = registry.versions(name)
    if not versions or version not in (None, *versions):
        raise not_found(model)
    return name


def require_in_service(registry: Registry, model: str) -> str:
    """The name in a path. Raises RegistryConflict if the path names a version, and another one is in service."""
    name = require_known(registry, model)
    now = registry.current(name)
    if (asked := parse_or_404(model)[1]) is not None and now is not None and now.version != asked:
        raise RegistryConflict(f"{name}:v{now.version} is in service, not v{asked}: name it, or none", param="model")
    return name


def require_published(registry: Registry, model: str) -> str:
    """The name in a path, one that had versions at any time. Raises ModelNotFound."""
    name, _ = parse_or_404(model)
    if registry.versions(name):
        return require_known(registry, model)
    if not registry.ledger(name):
        raise not_found(model)
    return name


def not_found(model: str) -> ModelNotFound:
    """The error of a name without versions."""
    return ModelNotFound(
        f"no trained model {model[:300]!r}; they are called ft:BASE:ORGANISATION:SUFFIX", param="model"
    )
