"""What serves under a job's name when training begins: what its result is compared with, or why it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import ArtifactError
from models.registry.artifact import Manifest
from models.registry.registry import Registry
from service.jobs.records import Job


@dataclass(frozen=True, slots=True)
class LiveModel:
    """The pointer's generation, and whether a version serves: at `path`, or `objection` says why it cannot be compared.

    `base` is where the encoder is that a version without one of its own was trained on, in its `base_version`.
    """

    generation: int
    serves: bool = False
    path: Path | None = None
    objection: str | None = None
    base: str | None = None
    base_version: str | None = None


def find(registry: Registry, job: Job, spec_of: Callable[[Manifest], str]) -> LiveModel:
    """What serves now; `spec_of` says where a version's base is. Raises RegistryError."""
    generation = registry.generation(job.name)
    current = registry.current(job.name)
    if current is None:
        return LiveModel(generation)
    try:
        manifest = registry.manifest(job.name, current.version)
    except ArtifactError as error:
        why = f"what serves now cannot be compared: {error.message}; promote by hand what is to replace it"
        return LiveModel(generation, serves=True, objection=why)
    if objection := _another(manifest, job):
        return LiveModel(generation, serves=True, objection=objection)
    found = LiveModel(generation, serves=True, path=registry.path(job.name, current.version))
    return (
        replace(found, base=spec_of(manifest), base_version=manifest.base_version)
        if manifest.encoder == "base"
        else found
    )


def _another(manifest: Manifest, job: Job) -> str | None:
    """The objection to a successor of another task, or of readings of another kind: its callers would get errors."""
    there = _described(manifest.task, (manifest.sensor or {}).get("kind"))
    here = _described(job.task, job.hyperparameters.get("kind"))
    if there == here:
        return None
    return f"what serves now is {there}, and this is {here}: give the job another suffix, or promote it by hand"


def _described(task: str, kind: object) -> str:
    article = "an" if task[0] in "ae" else "a"
    of = f" of {kind}" if task == "anomaly" and kind else ""
    return f"{article} {task} model{of}"
