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
from typing import Literal

from models.errors import RegistryBusy, RegistryError
from models.filesystem import is_full, make_directory
from models.training.hyperparameters import IMAGES
from service.config import Settings
from service.errors import FileMissing, LeaseLost, StorageFull, Unavailable
from service.jobs import feedback, paths
from service.jobs.files import Files
from service.jobs.leases import LeaseRenewer
from service.jobs.memory_watch import trainer_limit_bytes
from service.jobs.pending_writes import PendingWrites
from service.jobs.principal import Principal
from service.jobs.progress import ProgressDisplay
from service.jobs.publishing import Publisher, read_result
from service.jobs.records import FEEDBACK_PREFIX, IMAGE, Failure, Job, Status
from service.jobs.store import JobStore
from service.jobs.trainer_output import storable_text
from service.jobs.training_process import TrainingProcess

log = logging.getLogger(__name__)

_TICK_S = 0.1
_CANCEL_GRACE_S = 2.0
# Exit codes of the training process, see `models.training.run`.
_FAILED, _FULL = 3, 4
_CRASHED = "trainer_crashed"
_OUT_OF_MEMORY = "out_of_memory"
# Memory that others took may be free soon, so that a job is tried once more.
_ATTEMPTS_OUT_OF_MEMORY = 2
_NO_SPACE = Failure("disk_full", "no space is left for the job's files")

StopReason = Literal["cancel", "pause", "stop"]


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a training process ended: its exit code, why it was stopped if it was, and the end of its log.

    `too_large`: the worker killed it because it took too much memory. `machine_full`: the kernel did, because the
    machine or container had none left.
    """

    code: int
    reason: StopReason | None = None
    stderr: str = ""
    too_large: bool = False
    machine_full: bool = False


class AttemptRunner:
    """Runs attempts at claimed jobs, one at a time."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        files: Files,
        rows: feedback.FeedbackStore,
        publisher: Publisher,
        renewer: LeaseRenewer,
        *,
        command: Sequence[str],
        stopping: threading.Event,
        progress: ProgressDisplay,
    ) -> None:
        self._settings = settings
        self._store = store
        self._files = files
        self._rows = rows
        self._publisher = publisher
        self._renewer = renewer
        self._command = command
        self._stopping = stopping
        self._progress = progress
        self._home = settings.home.absolute()
        self._max_memory_bytes = trainer_limit_bytes(settings.max_trainer_memory)

    def run(self, job: Job) -> Status:
        """Run an attempt to its end; the job's status then.

        Raises LeaseLost when another worker has the job, Unavailable when the database stays away.
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
        now = self._store.get(job.id)
        if now.finished_at is not None:
            paths.remove_leftovers(self._home, job.id)
        return now.status

    def _attempt(self, job: Job) -> None:
        directory = paths.attempt_directory(self._home, job.id, job.attempt)
        shutil.rmtree(directory, ignore_errors=True)
        make_directory(directory)
        trained = next((one for one in paths.attempts(self._home, job.id) if read_result(one)), None)
        if job.control is not None:
            self._conclude(job, directory, ProcessEnd(0, job.control))
        elif trained is not None:  # an earlier attempt died before it published
            self._publish(job, trained)
        else:
            self._prepare(job, directory)
            self._conclude(job, directory, self._train(job, directory))

    def _prepare(self, job: Job, directory: Path) -> None:
        """Write `incumbent.json`, which publishing reads, and `job.json`, which the training process reads."""
        incumbent = self._publisher.incumbent(job)
        known = {"generation": incumbent.generation, "serves": incumbent.serves, "objection": incumbent.objection}
        (directory / "incumbent.json").write_text(json.dumps(known), encoding="utf-8")
        base_spec, from_registry = self._publisher.base(job)
        training_job = {
            "job": job.id,
            "base_spec": base_spec,
            "base": job.base,
            "keep_encoder": from_registry,
            "task": job.task,
            "hyperparameters": job.hyperparameters,
            "training_file": self._rows_path("training_file", job.training_file, job, directory),
            "validation_file": self._rows_path("validation_file", job.validation_file, job, directory),
            "columns": job.columns,
            "seed": job.seed,
            "device": self._settings.device,
            "dtype": self._settings.dtype,
            "threads": self._settings.threads,
            "checkpoint": paths.checkpoint(self._home, job.id),
            "cache": self._home / "cache",
            "autotune_file": self._settings.autotune_file.absolute(),
            "incumbent": incumbent.path,
            "incumbent_base": incumbent.base,
            "incumbent_base_version": incumbent.base_version,
            "bound": self._publisher.bound(job, directory),
        }
        (directory / "job.json").write_text(json.dumps(training_job, default=str), encoding="utf-8")

    def _rows_path(self, param: str, name: str | None, job: Job, directory: Path) -> Path | None:
        """The path of an uploaded file, or of feedback written to a file. Raises FileMissing."""
        if name is None:
            return None
        if not name.startswith(FEEDBACK_PREFIX):
            try:
                return self._files.path(name)
            except FileMissing as error:
                raise FileMissing(error.message, param=param) from error
        path = directory / "feedback.jsonl"
        rows = self._rows.on_behalf_of(Principal.from_feedback_reader(job.feedback_reader))
        kind = IMAGE if job.hyperparameters.get("kind") == IMAGES else None
        labels = feedback.GOOD if kind == IMAGE and job.task == "anomaly" else None
        rows.export(name.removeprefix(FEEDBACK_PREFIX), job.feedback_until or 0, path, kind=kind, labels=labels)
        return path

    def _train(self, job: Job, directory: Path) -> ProcessEnd:
        """Run the training process; report what it says until it ends or has to stop. Raises LeaseLost."""
        with TrainingProcess(self._command, directory, self._home, self._max_memory_bytes) as process:
            writes = PendingWrites(self._store, job, self._progress)
            code, reason = self._watch(job, process, writes)
            if reason is not None:
                code, reason = self._stop(job, process, writes, reason)
            writes.write(process.messages(), patience_s=self._settings.job_lease_s)
            return ProcessEnd(
                code, reason, process.stderr_tail(), process.took_too_much_memory, process.killed_for_memory
            )

    def _watch(self, job: Job, process: TrainingProcess, writes: PendingWrites) -> tuple[int, StopReason | None]:
        """Wait until the process ends, or for a reason to stop it."""
        next_look = 0.0
        while (code := process.wait(_TICK_S)) is None:
            writes.write(process.messages())
            self._require_lease(job)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + self._settings.job_poll_s
                if reason := self._stop_reason(job):
                    return 0, reason
        return code, None

    def _stop(
        self, job: Job, process: TrainingProcess, writes: PendingWrites, reason: StopReason
    ) -> tuple[int, StopReason]:
        """Have the process write a checkpoint and end; kill it when it takes too long."""
        log.info("stopping the training process", extra={"job": job.id, "why": reason})
        process.ask_to_stop()
        deadline = time.monotonic() + (_CANCEL_GRACE_S if reason == "cancel" else self._settings.job_stop_s)
        while (code := process.wait(_TICK_S)) is None and time.monotonic() < deadline:
            writes.write(process.messages())
            self._require_lease(job)
            if reason != "cancel" and self._stop_reason(job) == "cancel":
                return self._stop(job, process, writes, "cancel")
        process.kill()
        return -9 if code is None else code, reason

    def _require_lease(self, job: Job) -> None:
        if not self._renewer.holds(job.lease):
            raise LeaseLost(f"the lease of attempt {job.attempt} of {job.id} was lost")

    def _stop_reason(self, job: Job) -> StopReason | None:
        if self._stopping.is_set():
            return "stop"
        try:
            return self._store.get(job.id).control
        except Unavailable:
            return None  # the lease limits how long training goes on without a database

    def _conclude(self, job: Job, directory: Path, end: ProcessEnd) -> None:
        if end.reason == "cancel":
            self._retry(lambda: self._store.cancel(job))
        elif end.code == 0 and read_result(directory):
            self._publish(job, directory)
        elif end.too_large:
            self._fail(job, self._too_large())
        elif end.code == _FAILED and (failure := _read_error(directory)):
            if failure.code == _CRASHED:
                log.error("a fault of ours ended the training process", extra={"job": job.id, "stderr": end.stderr})
            self._fail(job, failure)
        elif end.code == _FULL:
            self._fail(job, _NO_SPACE)
        elif end.reason == "pause":
            self._retry(lambda: self._store.pause(job))
        elif end.reason == "stop":
            self._retry(lambda: self._store.requeue(job, "The worker stops; the job goes on with another"))
        else:
            self._requeue_crashed(job, end)

    def _too_large(self) -> Failure:
        return Failure(
            _OUT_OF_MEMORY,
            f"the training process may take {self._max_memory_bytes:,} bytes of memory and took more: train on fewer "
            "or shorter rows, set a smaller batch_size, or raise the worker's --max-trainer-memory",
        )

    def _requeue_crashed(self, job: Job, end: ProcessEnd) -> None:
        log.warning("the training process died", extra={"job": job.id, "exit_code": end.code, "stderr": end.stderr})
        if end.machine_full:
            failure = Failure(
                _OUT_OF_MEMORY,
                f"The kernel killed the training process in attempt {job.attempt}, because no memory was left: train "
                "on fewer or shorter rows, set a smaller batch_size, or give the worker more memory",
            )
            self._retry(lambda: self._store.requeue_crashed(job, failure, _ATTEMPTS_OUT_OF_MEMORY))
            return
        how = f"by signal {-end.code}" if end.code < 0 else f"with exit code {end.code}"
        failure = Failure(_CRASHED, f"The training process ended {how} in attempt {job.attempt}")
        self._retry(lambda: self._store.requeue_crashed(job, failure, self._settings.job_attempts))

    def _publish(self, job: Job, directory: Path) -> None:
        result = read_result(directory) or {}
        incumbent = json.loads((directory / "incumbent.json").read_text(encoding="utf-8"))
        self._retry(lambda: self._publisher.publish(job, directory, result, **incumbent))

    def _fail(self, job: Job, failure: Failure) -> None:
        log.warning("job failed: %s", failure.message, extra={"job": job.id, "code": failure.code})
        self._retry(lambda: self._store.fail(job, failure))

    def _retry(self, write: Callable[[], object]) -> object:
        """Write, trying again while the database or a lock is away and the lease may still hold."""
        deadline = time.monotonic() + self._settings.job_lease_s
        while True:
            try:
                return write()
            except (Unavailable, RegistryBusy):
                if time.monotonic() > deadline:
                    raise
            time.sleep(self._settings.job_poll_s)


def _read_error(directory: Path) -> Failure | None:
    try:
        error = json.loads((directory / "error.json").read_text(encoding="utf-8"))
        param = error.get("param")
        code, message = storable_text(str(error["code"]))[:64], storable_text(str(error["message"]))
        return Failure(code, message, None if param is None else storable_text(str(param)))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
