"""From a trained result to a version in the registry, in service or held: once per job, however often it is tried."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.errors import RegistryConflict
from models.registry.artifact import Golden, Manifest
from models.registry.registry import Registry
from service.errors import JobNotFound
from service.jobs import incumbent, promotion
from service.jobs.records import Event, Job, Success
from service.jobs.store import Store

Check = Callable[[Path, str], str | None]


class _Published(Exception):
    """Another attempt was faster."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class Publisher:
    """Publishes results; asks the gate; promotes or holds. `check(directory, base model's spec)` says what is wrong,
    or None.
    """

    def __init__(self, store: Store, registry: Registry, *, check: Check, auto_promote: bool, max_ece: float) -> None:
        self._store = store
        self._registry = registry
        self._check = check
        self._auto_promote = auto_promote
        self._max_ece = max_ece

    def incumbent(self, job: Job) -> incumbent.LiveModel:
        """What serves under the job's name now."""
        return incumbent.find(self._registry, job, self._spec_of)

    def _spec_of(self, manifest: Manifest) -> str:
        """Where the base of a version is: where the job that trained it had it from, else what the base is called."""
        try:
            return self._store.get(manifest.job).spec
        except JobNotFound:
            return manifest.base

    def base(self, job: Job) -> tuple[str, bool]:
        """Where a job's base is, as `--model` takes it, and whether it is a tuned encoder of the registry. Raises
        NotRegistered.
        """
        name, tuned, version = job.spec.rpartition(":v")
        if not tuned or not name.startswith("ft:"):
            return job.spec, False
        self._registry.manifest(name, int(version))
        return f"{job.model}={self._registry.path(name, int(version)) / 'encoder'}", True

    def publish(
        self,
        job: Job,
        attempt: Path,
        result: dict[str, Any],
        *,
        serves: bool,
        generation: int,
        objection: str | None = None,
    ) -> None:
        """End a job with a model. What comes last is as `Incumbent` was when training began. Raises LeaseLost and
        ArtifactError.
        """
        version = self._version(job, attempt, result)
        decision = promotion.decide(
            result,
            serves=serves,
            incomparable=objection,
            reproduces=lambda: self._check(self._registry.path(job.name, version), job.spec),
            auto_promote=self._auto_promote,
            max_ece=self._max_ece,
        )
        decision = self._promote(job, version, decision, generation)
        name = f"{job.name}:v{version}"
        outcome = "promoted" if decision.promote else "held"
        kept = {key: result.get(key) for key in ("metrics", "incumbent_metrics", "mode", "labels")}
        told = {"version": version, "decision": outcome, "why": decision.why, **kept}
        success = Success(name, int(result.get("trained_tokens") or 0), told)
        self._store.succeed(
            job, success, Event("info", f"New fine-tuned model created: {name}; {outcome}: {decision.why}")
        )

    def _version(self, job: Job, attempt: Path, result: dict[str, Any]) -> int:
        before = self._registry.published(job.name, job.id)
        if before is not None:
            return before
        for report in ("report.json", "report.md"):
            if (attempt / report).is_file():
                shutil.copyfile(attempt / report, attempt / "result" / report)
        try:
            return self._registry.publish(
                job.name, attempt / "result", lambda version: self._manifest(job, result, version)
            )
        except _Published as published:
            return published.version

    def _manifest(self, job: Job, result: dict[str, Any], version: int) -> Manifest:
        """Made while the registry lets nobody else publish under the name: the place to see that no other attempt
        has.
        """
        current = self._store.fence(job)
        before = self._registry.published(job.name, job.id)
        if before is not None:
            raise _Published(before)
        return Manifest(
            name=job.name,
            version=version,
            task=result["task"],
            base=job.model,
            base_version=result["base_version"],
            encoder=result["encoder"],
            labels=tuple(result["labels"]),
            metrics={name: float(value) for name, value in result["metrics"].items() if isinstance(value, int | float)},
            golden=Golden.from_json(result["golden"]),
            created=int(current.started_at or current.created_at),
            job=job.id,
            seed=job.seed,
            hyperparameters=dict(job.hyperparameters),
            sensor=result.get("sensor"),
        )

    def _promote(self, job: Job, version: int, decision: promotion.Decision, generation: int) -> promotion.Decision:
        done = [
            line
            for line in self._registry.ledger(job.name)
            if line.get("action") == "promote" and line.get("by") == job.id
        ]
        if done:
            return promotion.Decision(True, str(done[0].get("why")))
        if not decision.promote:
            return decision
        self._store.fence(job)
        try:
            self._registry.promote(job.name, version, by=job.id, why=decision.why, expected=generation)
        except RegistryConflict:
            return promotion.Decision(
                False, "another version went into service while this one was trained, and was not compared with it"
            )
        return decision


def read_result(attempt: Path) -> dict[str, Any] | None:
    """What the trainer wrote last; None while it has not, or where it was cut off."""
    try:
        read = json.loads((attempt / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) and (attempt / "result").is_dir() else None
