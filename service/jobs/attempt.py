"""One attempt at a job: prepare, train, publish; stop when asked to, and when the lease is lost."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import RegistryError
from models.filesystem import is_full
from service.config import Settings
from service.errors import FileMissing, LeaseLost, StorageFull, Unavailable
from service.jobs import feedback, paths
from service.jobs.files import Files
from service.jobs.leases import LeaseRenewer
from service.jobs.progress import ProgressDisplay
from service.jobs.publishing import Publisher, read_result
from service.jobs.records import Checkpoint, Event, Failure, Job, Status
from service.jobs.store import Store
from service.jobs.trainer_output import clean
from service.jobs.training_process import TrainingProcess

log = logging.getLogger(__name__)

_TICK_S = 0.1
_CANCEL_GRACE_S = 2.0
# Exit codes of the training process, see `models.training.run`.
_FAILED, _FULL = 3, 4
_CRASHED = "trainer_crashed"
_NO_SPACE = Failure("disk_full", "no space is left for the job's files")

Reason = Literal["cancel", "pause", "stop"]


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a training process ended: by itself (`reason` is None) or because it was stopped."""

    code: int
    reason: Reason | None


class AttemptRunner:
    """Runs attempts. `submit` queues a job again under a new dispatch number."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        files: Files,
        rows: feedback.Feedback,
        publisher: Publisher,
        keeper: LeaseRenewer,
        *,
        command: Sequence[str],
        submit: Callable[[str, int], None],
        stopping: threading.Event,
        progress: ProgressDisplay,
    ) -> None:
        self._settings = settings
        self._store = store
        self._files = files
        self._rows = rows
        self._publisher = publisher
        self._keeper = keeper
        self._command = command
        self._submit = submit
        self._stopping = stopping
        self._progress = progress
        self._home = settings.home.absolute()

    def run(self, job: Job) -> Status:
        """Bring a claimed job as far as it goes; its status then.

        Raises LeaseLost when it is another's, Unavailable when the database stays away.
        """
        log.info("attempt begins", extra={"job": job.id, "attempt": job.attempt})
        try:
            self._attempt(job)
        except FileMissing as error:
            self._fail(job, Failure("file_not_found", error.message, error.param))
        except RegistryError as error:
            self._fail(job, Failure(error.code, error.message))
        except StorageFull as error:
            self._fail(job, Failure("disk_full", error.message))
        except OSError as error:
            if not is_full(error):
                raise
            self._fail(job, _NO_SPACE)
        finally:
            self._progress.end()
        return self._remove_leftovers(job)

    def _attempt(self, job: Job) -> None:
        directory = paths.attempt_directory(self._home, job.id, job.attempt)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        finished = next((one for one in paths.attempts(self._home, job.id) if read_result(one)), None)
        if job.control is None and finished is None:
            self._prepare(job, directory)
            with TrainingProcess(self._command, directory, self._home) as trainer:
                ending = self._watch(job, trainer)
                words = trainer.stderr_tail()
            self._conclude(job, directory, ending, words)
        elif job.control is None and finished is not None:
            self._publish(job, finished)
        else:
            self._conclude(job, directory, ProcessEnd(0, job.control), "")

    def _prepare(self, job: Job, directory: Path) -> None:
        incumbent = self._publisher.incumbent(job)
        spec, tuned = self._publisher.base(job)
        known = {"generation": incumbent.generation, "serves": incumbent.serves, "objection": incumbent.objection}
        (directory / "incumbent.json").write_text(json.dumps(known), encoding="utf-8")
        checkpoint = paths.checkpoint(self._home, job.id)
        about = {
            "job": job.id,
            "model": spec,
            "base": job.model,
            "keep_encoder": tuned,
            "task": job.task,
            "hyperparameters": job.hyperparameters,
            "training_file": str(self._rows_of(job, "training_file", job.training_file, directory)),
            "validation_file": str(self._rows_of(job, "validation_file", job.validation_file, directory))
            if job.validation_file
            else None,
            "columns": job.columns,
            "seed": job.seed,
            "device": self._settings.device,
            "dtype": self._settings.dtype,
            "threads": self._settings.threads,
            "checkpoint": str(checkpoint) if checkpoint else None,
            "cache": str(self._home / "cache"),
            "incumbent": str(incumbent.path) if incumbent.path else None,
            "incumbent_base": incumbent.base,
            "incumbent_base_version": incumbent.base_version,
        }
        (directory / "job.json").write_text(json.dumps(about), encoding="utf-8")

    def _rows_of(self, job: Job, param: str, name: str, directory: Path) -> Path:
        if not name.startswith(feedback.PREFIX):
            try:
                return self._files.path(name)
            except FileMissing as error:
                raise FileMissing(error.message, param=param) from error
        path = directory / "feedback.jsonl"
        self._rows.export(name.removeprefix(feedback.PREFIX), job.feedback_until or 0, path)
        return path

    def _watch(self, job: Job, trainer: TrainingProcess) -> ProcessEnd:
        """Report, look whether to stop, until it ends. Raises LeaseLost."""
        outbox = PendingWrites(self._store, job, self._progress)
        next_look = 0.0
        while (code := trainer.wait(_TICK_S)) is None:
            outbox.post(trainer.said())
            self._require_lease(job)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + self._settings.job_poll_s
                if reason := self._reason(job):
                    return self._stop(job, trainer, outbox, reason)
        outbox.post(trainer.said(), patience_s=self._settings.job_lease_s)
        return ProcessEnd(code, None)

    def _stop(self, job: Job, trainer: TrainingProcess, outbox: PendingWrites, reason: Reason) -> ProcessEnd:
        log.info("stopping the training process", extra={"job": job.id, "why": reason})
        trainer.ask_to_stop()
        deadline = time.monotonic() + (_CANCEL_GRACE_S if reason == "cancel" else self._settings.job_stop_s)
        while (code := trainer.wait(_TICK_S)) is None and time.monotonic() < deadline:
            outbox.post(trainer.said())
            self._require_lease(job)
            if reason != "cancel" and self._reason(job) == "cancel":
                return self._stop(job, trainer, outbox, "cancel")
        trainer.kill()
        outbox.post(trainer.said(), patience_s=self._settings.job_lease_s)
        return ProcessEnd(code if code is not None else -9, reason)

    def _require_lease(self, job: Job) -> None:
        if not self._keeper.holds(job.lease):
            raise LeaseLost(f"the lease of attempt {job.attempt} of {job.id} was lost")

    def _reason(self, job: Job) -> Reason | None:
        if self._stopping.is_set():
            return "stop"
        try:
            return self._store.get(job.id).control
        except Unavailable:
            return None  # the lease says how long to go on without a database

    def _conclude(self, job: Job, directory: Path, ending: ProcessEnd, words: str) -> None:
        if ending.reason == "cancel":
            self._patiently(lambda: self._store.cancelled(job))
        elif ending.code == 0 and read_result(directory):
            self._publish(job, directory)
        elif ending.code == _FAILED and (failure := _read_error(directory)):
            self._log_fault(job, failure, words)
            self._fail(job, failure)
        elif ending.code == _FULL:
            self._fail(job, _NO_SPACE)
        elif ending.reason == "pause":
            self._again(job, self._patiently(lambda: self._store.paused(job)))
        elif ending.reason == "stop":
            self._patiently(lambda: self._store.give_back(job, "The worker stops; the job goes on with another"))
            self._again(job, "queued")
        else:
            self._crashed(job, ending, words)

    def _crashed(self, job: Job, ending: ProcessEnd, words: str) -> None:
        log.warning("the training process died", extra={"job": job.id, "exit_code": ending.code, "stderr": words})
        how = f"by signal {-ending.code}" if ending.code < 0 else f"with exit code {ending.code}"
        failure = Failure(_CRASHED, f"The training process ended {how} in attempt {job.attempt}")
        if self._patiently(lambda: self._store.crashed(job, failure, self._settings.job_attempts)) is not None:
            self._again(job, "queued")

    def _log_fault(self, job: Job, failure: Failure, words: str) -> None:
        if failure.code == _CRASHED:
            log.error("a fault of ours ended the training process", extra={"job": job.id, "stderr": words})

    def _publish(self, job: Job, directory: Path) -> None:
        result = read_result(directory) or {}
        before = json.loads((directory / "incumbent.json").read_text(encoding="utf-8"))
        self._patiently(lambda: self._publisher.publish(job, directory, result, **before))

    def _again(self, job: Job, status: Status) -> None:
        """Queue the job's new dispatch; where that fails, the look for stranded jobs does it later."""
        now = self._store.get(job.id)
        if status == "queued" and now.status == "queued":
            try:
                self._submit(job.id, now.dispatch)
            except Unavailable as error:
                log.warning("the job waits to be queued: %s", error.message, extra={"job": job.id})

    def _fail(self, job: Job, failure: Failure) -> None:
        log.info("job failed", extra={"job": job.id, "code": failure.code})
        self._patiently(lambda: self._store.fail(job, failure))

    def _remove_leftovers(self, job: Job) -> Status:
        now = self._store.get(job.id)
        if now.finished_at is not None:
            paths.remove_leftovers(self._home, job.id)
        return now.status

    def _patiently(self, write: Callable[[], Any]) -> Any:
        """Write, trying again while the database is away and the lease may still hold."""
        deadline = time.monotonic() + self._settings.job_lease_s
        while True:
            try:
                return write()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(self._settings.job_poll_s)


class PendingWrites:
    """What was said and is not written yet: kept while the database is away, so that a short absence loses nothing."""

    def __init__(self, store: Store, job: Job, progress: ProgressDisplay) -> None:
        self._store = store
        self._job = job
        self._progress = progress
        self._said: list[Event] = []
        self._saved: list[Checkpoint] = []
        self._status: Status | None = None

    def post(self, said: Any, patience_s: float = 0.0) -> None:
        """Write. Raises LeaseLost."""
        for one in said:
            self._sort(one)
        deadline = time.monotonic() + patience_s
        while self._said or self._saved or self._status:
            try:
                self._store.record(self._job, said=self._said, saved=self._saved, status=self._status)
                self._said, self._saved, self._status = [], [], None
            except Unavailable:
                if time.monotonic() >= deadline:
                    return
                time.sleep(_TICK_S)

    def _sort(self, one: Event | Checkpoint | Status) -> None:
        if isinstance(one, Event):
            self._progress.show(self._job, one)
            self._said.append(one)
        elif isinstance(one, Checkpoint):
            self._saved.append(one)
        else:
            self._status = one


def _read_error(directory: Path) -> Failure | None:
    try:
        read = json.loads((directory / "error.json").read_text(encoding="utf-8"))
        param = read.get("param")
        return Failure(
            clean(str(read["code"]))[:64], clean(str(read["message"])), None if param is None else clean(str(param))
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
