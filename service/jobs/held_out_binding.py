"""Binds an uploaded file to a model's name: its rows judge every later version beside those of the version's job."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.filesystem import Permit
from models.registry.artifact import Manifest
from models.registry.held_out import HeldOut
from models.registry.registry import Registry
from service.errors import FileMissing
from service.jobs.held_out_check import count_rows

if TYPE_CHECKING:
    from service.jobs.files import Files, StoredFile


def find_upload(files: Files, file: str) -> tuple[StoredFile, Path]:
    """An uploaded file and the path of its bytes. Raises FileMissing."""
    try:
        return files.get(file), files.path(file)
    except FileMissing as error:
        raise FileMissing(error.message, param="file") from error


def bind(
    registry: Registry,
    name: str,
    stored: StoredFile,
    path: Path,
    columns: Mapping[str, str],
    *,
    by: str,
    permit: Permit,
    max_memory_bytes: int,
) -> HeldOut:
    """Check a file and copy it below the registry, in place of what was bound before.

    It is read as for the version in service, else the newest: by its task and the columns of its readings. `columns`
    maps those of texts. `max_memory_bytes` is for reading it. Raises InvalidRequest for a file that the task cannot
    read, NotRegistered, ArtifactError, Unavailable, and what `permit` raises.
    """
    manifest = _judged_manifest(registry, name)
    read_as: dict[str, Any] = {"task": manifest.task, "columns": dict(columns), "hyperparameters": _roles(manifest)}
    rows = count_rows({"path": path, "sha256": stored.sha256, **read_as}, max_memory_bytes)
    held_out = HeldOut(
        file=stored.id, format=stored.format, sha256=stored.sha256, rows=rows, by=by, at=int(time.time()), **read_as
    )
    registry.bind_held_out(name, path, held_out, permit=permit)
    return held_out


def _judged_manifest(registry: Registry, name: str) -> Manifest:
    current = registry.current(name)
    return registry.manifest(name, current.version if current else max(registry.versions(name), default=1))


def _roles(manifest: Manifest) -> dict[str, Any]:
    """The hyperparameters by which rows are read; the columns of readings are those that the version reads."""
    columns = (manifest.sensor or {}).get("columns")
    return {**manifest.hyperparameters, **({"columns": columns} if columns else {})}
