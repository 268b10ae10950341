"""Trained models' names in paths."""

from __future__ import annotations

from models.errors import BadName
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
    """The name in a path, one that has versions. Raises ModelNotFound."""
    name, version = parse_or_404(model)
    if version is not None or not registry.versions(name):
        raise not_found(model)
    return name


def require_published(registry: Registry, model: str) -> str:
    """The name in a path, one that had versions at any time. Raises ModelNotFound."""
    name, version = parse_or_404(model)
    if version is not None or not (registry.versions(name) or registry.ledger(name)):
        raise not_found(model)
    return name


def not_found(model: str) -> ModelNotFound:
    """The error of a name without versions."""
    return ModelNotFound(
        f"no trained model {model[:300]!r}; they are called ft:BASE:ORGANISATION:SUFFIX", param="model"
    )
