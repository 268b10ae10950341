"""Publishes a trained result as a version of the registry, and promotes or holds it: once per job."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.errors import RegistryConflict
from models.registry.artifact import Golden, Manifest
from models.registry.registry import Registry
from service.errors import JobNotFound
from service.jobs import incumbent, promotion_gate
from service.jobs.promotion_rights import PromotionRights
from service.jobs.records import Job, JobEvent, Success
from service.jobs.store import JobStore

log = logging.getLogger(__name__)

Check = Callable[[Path, str], str | None]


class _NotPermitted(Exception):
    """What a decision was based on has changed, and the version has to be held."""

    def __init__(self, decision: promotion_gate.Decision) -> None:
        super().__init__(decision.why)
        self.decision = decision


class _AlreadyPublished(Exception):
    """Another attempt published the job's version first."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class Publisher:
    """Publishes results; every step may be repeated, so that an attempt can finish what an earlier one began.

    `check(directory, base model's spec)` says what is wrong with an artifact, or None.
    """

    def __init__(
        self,
        store: JobStore,
        registry: Registry,
        rights: PromotionRights,
        *,
        check: Check,
        auto_promote: bool,
        max_ece: float,
    ) -> None:
        self._store = store
        self._registry = registry
        self._rights = rights
        self._check = check
        self._auto_promote = auto_promote
        self._max_ece = max_ece

    def incumbent(self, job: Job) -> incumbent.IncumbentVersion:
        """The model in service under the job's name, or the one that served last."""
        return incumbent.find(self._registry, job, self._base_spec)

    def bound(self, job: Job, attempt: Path) -> dict[str, Any] | None:
        """What `job.json` says of the rows bound to the job's name, copied to `attempt`; None without any.

        Raises RegistryError where the copy is damaged.
        """
        found = self._registry.copy_held_out(job.name, attempt)
        if found is None:
            return None
        held_out, path = found
        read_as = {"task": held_out.task, "columns": held_out.columns, "hyperparameters": held_out.hyperparameters}
        return {"path": path, "sha256": held_out.sha256, **read_as}

    def base(self, job: Job) -> tuple[str, bool]:
        """The spec of a job's base, as `--model` takes it, and whether it is a tuned encoder of the registry.

        Raises NotRegistered.
        """
        name, tuned, version = job.base_spec.rpartition(":v")
        if not tuned or not name.startswith("ft:"):
            return job.base_spec, False
        self._registry.manifest(name, int(version))
        return f"{job.base}={self._registry.path(name, int(version)) / 'encoder'}", True

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
        """Publish the result in directory `attempt`, decide on its promotion, and end the job.

        `serves`, `generation` and `objection` are those of `IncumbentVersion` when training began. Raises LeaseLost and
        ArtifactError.
        """
        version = self._publish_version(job, attempt, result)
        wrong = self._check(self._registry.path(job.name, version), job.base_spec)

        def decide() -> promotion_gate.Decision:
            bound = self._registry.held_out(job.name)
            return promotion_gate.decide(
                result,
                serves=serves,
                incomparable=objection,
                wrong=wrong,
                auto_promote=self._auto_promote,
                max_ece=self._max_ece,
                bound=bound.sha256 if bound else None,
                not_permitted=self._rights.objection(job),
                withdrawn=self._registry.current(job.name) is None,
            )

        self._end(job, version, result, self._promote(job, version, decide, generation))

    def _end(self, job: Job, version: int, result: dict[str, Any], decision: promotion_gate.Decision) -> None:
        """End the job with its version, promoted or held."""
        name = f"{job.name}:v{version}"
        outcome = "promoted" if decision.promote else "held"
        kept = {key: result.get(key) for key in ("metrics", "incumbent_metrics", "mode", "labels", "bound")}
        summary = {"version": version, "decision": outcome, "why": decision.why, **kept}
        event = JobEvent("info", f"New fine-tuned model created: {name}; {outcome}: {decision.why}")
        self._store.succeed(job, Success(name, int(result.get("trained_tokens") or 0), summary), event)
        log.info("job succeeded, its model was %s", outcome, extra={"job": job.id, "model": name, "why": decision.why})

    def _base_spec(self, manifest: Manifest) -> str:
        """The spec of a version's base, from the job that trained it, else the base's name."""
        try:
            return self._store.get(manifest.job).base_spec
        except JobNotFound:
            return manifest.base

    def _publish_version(self, job: Job, attempt: Path, result: dict[str, Any]) -> int:
        before = self._registry.published(job.name, job.id)
        if before is not None:
            return before
        for report in ("report.json", "report.md"):
            if (attempt / report).is_file():
                shutil.copyfile(attempt / report, attempt / "result" / report)
        try:
            return self._registry.publish(
                job.name, attempt / "result", lambda version: self._make_manifest(job, result, version)
            )
        except _AlreadyPublished as published:
            return published.version

    def _make_manifest(self, job: Job, result: dict[str, Any], version: int) -> Manifest:
        """Make the manifest, unless another attempt has published the job's version.

        The registry calls this under a lock on the name, so no other attempt can publish between check and write.
        """
        current = self._store.fence(job)
        before = self._registry.published(job.name, job.id)
        if before is not None:
            raise _AlreadyPublished(before)
        return Manifest(
            name=job.name,
            version=version,
            task=result["task"],
            base=job.base,
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
            owner=job.owner,
        )

    def _promote(
        self, job: Job, version: int, decide: Callable[[], promotion_gate.Decision], generation: int
    ) -> promotion_gate.Decision:
        """Promote the version unless the decision or the registry is against it; the decision then.

        It is made again under the name's lock, since keys, owners and bound rows change while files are verified.
        """

        def require_still() -> None:
            now = decide()
            if not now.promote:
                raise _NotPermitted(now)

        if (before := self._promoted_before(job)) is not None:
            return before
        decision = decide()
        if not decision.promote:
            return decision
        self._store.fence(job)
        try:
            self._registry.promote(
                job.name, version, by=job.id, why=decision.why, expected=generation, permit=require_still
            )
        except _NotPermitted as refused:
            return refused.decision
        except RegistryConflict:
            why = "another version went into service while this one was trained, and was not compared with it"
            return promotion_gate.Decision(False, why)
        return decision

    def _promoted_before(self, job: Job) -> promotion_gate.Decision | None:
        """The decision of an earlier attempt that promoted the job's version."""
        for line in self._registry.ledger(job.name):
            if line.get("action") == "promote" and line.get("by") == job.id:
                return promotion_gate.Decision(True, str(line.get("why")))
        return None


def read_result(attempt: Path) -> dict[str, Any] | None:
    """What the training process wrote last; None while it has not, or where the file is incomplete."""
    try:
        result = json.loads((attempt / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and (attempt / "result").is_dir() else None
