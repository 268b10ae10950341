"""Binds an uploaded file to a model's name: its rows judge every later version beside those of the version's job."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.registry.artifact import Manifest
from models.registry.held_out import HeldOut
from models.registry.registry import Registry
from service.errors import FileMissing
from service.jobs.files import Files, StoredFile
from service.jobs.held_out_check import count_rows


def bind(registry: Registry, files: Files, name: str, file: str, columns: Mapping[str, str], *, by: str) -> HeldOut:
    """Check a file and copy it below the registry, in place of what was bound before.

    It is read as for the version in service, else the newest: by its task and the columns of its readings. `columns`
    maps those of texts. Raises InvalidRequest for a file that the task cannot read, FileMissing, NotRegistered,
    ArtifactError and Unavailable.
    """
    stored, path = _find(files, file)
    manifest = _judged_manifest(registry, name)
    read_as: dict[str, Any] = {"task": manifest.task, "columns": dict(columns), "hyperparameters": _roles(manifest)}
    rows = count_rows({"path": path, "sha256": stored.sha256, **read_as})
    held_out = HeldOut(
        file=file, format=stored.format, sha256=stored.sha256, rows=rows, by=by, at=int(time.time()), **read_as
    )
    registry.bind_held_out(name, path, held_out)
    return held_out


def _find(files: Files, file: str) -> tuple[StoredFile, Path]:
    try:
        return files.get(file), files.path(file)
    except FileMissing as error:
        raise FileMissing(error.message, param="file") from error


def _judged_manifest(registry: Registry, name: str) -> Manifest:
    current = registry.current(name)
    return registry.manifest(name, current.version if current else max(registry.versions(name), default=1))


def _roles(manifest: Manifest) -> dict[str, Any]:
    """The hyperparameters by which rows are read; the columns of readings are those that the version reads."""
    columns = (manifest.sensor or {}).get("columns")
    return {**manifest.hyperparameters, **({"columns": columns} if columns else {})}
