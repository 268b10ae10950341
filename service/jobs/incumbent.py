"""The model in service under a job's name when training begins, or before a withdrawal: a result must reach it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import ArtifactError, NotRegistered
from models.registry.artifact import Manifest
from models.registry.registry import Registry
from service.jobs.records import Job


@dataclass(frozen=True, slots=True)
class IncumbentVersion:
    """The live or last version at `path`, or in `objection` why the result cannot be compared with it.

    `generation` is the pointer's. `base` is the model spec of the encoder that a version without an encoder of its own
    was trained on, in its `base_version`.
    """

    generation: int
    serves: bool = False
    path: Path | None = None
    objection: str | None = None
    base: str | None = None
    base_version: str | None = None


def find(registry: Registry, job: Job, spec_of: Callable[[Manifest], str]) -> IncumbentVersion:
    """Find the live version, or of a withdrawn name the one that served last, unless it was deleted.

    `spec_of` gives the model spec of a version's base. Raises RegistryError.
    """
    generation = registry.generation(job.name)
    last = registry.last_move(job.name)
    version = last.previous if last.version is None else last.version
    if version is None or registry.is_deleted(job.name, version):
        return IncumbentVersion(generation)
    try:
        manifest = registry.manifest(job.name, version)
    except (ArtifactError, NotRegistered) as error:
        why = f"what serves now cannot be compared: {error.message}; promote by hand what is to replace it"
        return IncumbentVersion(generation, serves=True, objection=why)
    if objection := _task_objection(manifest, job):
        return IncumbentVersion(generation, serves=True, objection=objection)
    found = IncumbentVersion(generation, serves=True, path=registry.path(job.name, version))
    if manifest.encoder != "base":
        return found
    return replace(found, base=spec_of(manifest), base_version=manifest.base_version)


def _task_objection(manifest: Manifest, job: Job) -> str | None:
    """The objection to a successor of another task or kind of readings: its callers would get errors."""
    there = _describe(manifest.task, (manifest.sensor or {}).get("kind"))
    here = _describe(job.task, job.hyperparameters.get("kind"))
    if there == here:
        return None
    return f"what serves now is {there}, and this is {here}: give the job another suffix, or promote it by hand"


def _describe(task: str, kind: object) -> str:
    article = "an" if task[0] in "ae" else "a"
    of = f" of {kind}" if task == "anomaly" and kind else ""
    return f"{article} {task} model{of}"
