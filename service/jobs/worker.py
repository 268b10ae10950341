"""The worker: holds a lease, claims jobs one after the other, and removes what finished jobs left behind."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence

from models.errors import RegistryError, SondeError
from models.registry.names import parse_name
from models.registry.registry import Registry
from service.auth import Keyring
from service.config import Settings
from service.errors import LeaseLost, Unavailable
from service.home import prepare_home
from service.jobs import golden_check, paths
from service.jobs.attempt import AttemptRunner
from service.jobs.database import DATABASE_UNAVAILABLE, Database
from service.jobs.feedback import FeedbackStore
from service.jobs.files import Files
from service.jobs.leases import LeaseRenewer, WorkerLeases
from service.jobs.progress import ProgressDisplay
from service.jobs.promotion_rights import PromotionRights
from service.jobs.publishing import Check, Publisher
from service.jobs.records import TERMINAL, Failure, Job, Status
from service.jobs.store import JobStore
from service.jobs.training_process import TRAINER
from service.metrics import JobMetrics, listen
from service.processes.signals import on_signals

log = logging.getLogger(__name__)

_ABANDONED_UPLOAD_S = 24 * 3600.0
_REMOVE_STALE_EVERY_S = 3600.0
# A transaction takes its time before it commits, so a job may become visible this much after its `finished_at`.
_COMMIT_DELAY_S = 60.0
_NAME_LENGTH = 64  # of the column


class Worker:
    """A worker process; `work` blocks until `stop`."""

    def __init__(self, settings: Settings, *, command: Sequence[str] = TRAINER, check: Check | None = None) -> None:
        self._settings = settings
        self._home = settings.home.absolute()
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"[-_NAME_LENGTH:]
        self._database = Database(settings.database_url, self._home, max(settings.job_lease_s / 2, 1.0))
        self._store = JobStore(self._database, self._home, settings.job_lease_s)
        self._leases = WorkerLeases(self._database, settings.job_lease_s)
        self.metrics = JobMetrics()
        renewed = self.metrics.heartbeat.set_to_current_time
        self._renewer = LeaseRenewer(self._leases, self.name, on_renewed=renewed)
        self._files = Files(self._database, self._home, settings.max_file_bytes)
        self.stopping = threading.Event()
        self._cleaned_until = 0.0
        self._remove_stale_at = 0.0
        registry = self._registry = Registry(self._home / "models")
        publisher = Publisher(
            self._store,
            registry,
            PromotionRights(registry, Keyring(settings.keys_file), shared=settings.shared),
            check=check or golden_check.checker(settings),
            auto_promote=settings.auto_promote,
            max_ece=settings.max_calibration_error,
        )
        self._runner = AttemptRunner(
            settings,
            self._store,
            self._files,
            FeedbackStore(self._database),
            publisher,
            self._renewer,
            command=command,
            stopping=self.stopping,
            progress=ProgressDisplay(sys.stderr),
        )

    def work(self) -> int:
        """Run jobs until told to stop; the exit code."""
        try:
            if self._open():
                log.info("worker ready", extra={"worker": self.name})
                jobs = threading.Thread(target=self._run_jobs, name="run-jobs", daemon=True)
                jobs.start()
                self._maintain()
                jobs.join(self._settings.job_stop_s + self._settings.job_lease_s)
        finally:
            self._renewer.close()
            self._database.close()
        return 0

    def stop(self) -> None:
        """End: the running training process writes a checkpoint, and its job is queued again."""
        self.stopping.set()

    def _open(self) -> bool:
        """Make the tables and take a lease, waiting for the database where need be; False when told to stop first."""
        steps: list[Callable[[], None]] = [self._store.migrate, self._renewer.open]
        told = ""
        while steps and not self.stopping.is_set():
            try:
                steps[0]()
                steps.pop(0)
            except DATABASE_UNAVAILABLE as error:
                if error.message != told:
                    log.warning("waiting for the database, and trying again: %s", told := error.message)
                self.stopping.wait(self._settings.job_poll_s)
        return not steps

    def _run_jobs(self) -> None:
        while not self.stopping.is_set():
            job = self._claim()
            if job is None:
                self.stopping.wait(self._settings.job_poll_s)
            else:
                self._run(job)

    def _claim(self) -> Job | None:
        try:
            return self._store.claim(self._renewer.lease, self._settings.job_attempts)
        except LeaseLost:
            return None  # the renewer takes a new one
        except SondeError as error:
            log.warning("no job could be claimed: %s", error.message)
        except Exception:  # from a library; a worker that claims no more would look alive and do nothing
            log.exception("no job could be claimed")
        self.stopping.wait(self._settings.job_lease_s / 4)
        return None

    def _run(self, job: Job) -> None:
        began = time.monotonic()
        with self.metrics.running.track_inprogress():
            outcome = self._attempt(job)
        self.metrics.ended(outcome, time.monotonic() - began)

    def _attempt(self, job: Job) -> str:
        """Run an attempt; its outcome, one of ATTEMPT_OUTCOMES."""
        try:
            return _to_outcome(self._runner.run(job))
        except LeaseLost as error:
            log.warning("stopped: %s", error.message, extra={"job": job.id, "attempt": job.attempt})
            return "lost"
        except DATABASE_UNAVAILABLE as error:
            log.warning("the next worker to claim the job goes on: %s", error.message, extra={"job": job.id})
            self._replace_lease()
            return "lost"
        except Exception:
            log.exception("unexpected error", extra={"job": job.id, "attempt": job.attempt})
            self._fail(job)
            return "failed"

    def _fail(self, job: Job) -> None:
        try:
            self._store.fail(job, Failure("internal_error", "a fault of the worker's; its log says more"))
        except LeaseLost:
            log.warning("the job is another worker's", extra={"job": job.id})
        except SondeError:
            self._replace_lease()

    def _replace_lease(self) -> None:
        """Have the job count as lost though this worker lives on."""
        try:
            self._renewer.replace()
        except DATABASE_UNAVAILABLE as error:
            log.warning("the lease expires by itself: %s", error.message)

    def _maintain(self) -> None:
        """Export counts of jobs and remove leftovers until told to stop."""
        self._count_jobs()
        while not self.stopping.wait(self._settings.job_lease_s / 4):
            self._remove_leftovers()
            self._count_jobs()

    def _count_jobs(self) -> None:
        try:
            self.metrics.count(self._store.counts(), len(self._leases.workers()))
        except DATABASE_UNAVAILABLE as error:
            log.warning("jobs cannot be counted: %s", error.message)

    def _remove_leftovers(self) -> None:
        """Remove files of jobs that no worker ran when they finished, and once an hour expired and abandoned ones."""
        try:
            if time.monotonic() >= self._remove_stale_at:
                self._remove_stale_at = time.monotonic() + _REMOVE_STALE_EVERY_S
                self._files.remove_stale_uploads(_ABANDONED_UPLOAD_S, time.time())
                self._files.remove_expired()
                self._remove_old_jobs()
            for job, at in self._store.finished_since(self._cleaned_until - _COMMIT_DELAY_S):
                paths.remove_leftovers(self._home, job)
                self._cleaned_until = max(self._cleaned_until, at)
        except (Unavailable, OSError, RegistryError) as error:
            log.warning("files of finished jobs cannot be removed: %s", error)

    def _remove_old_jobs(self) -> None:
        """Remove what each key has finished beyond its limit, but for jobs whose model was promoted."""
        limit = self._settings.max_key_finished_jobs
        removed = 0
        for job in self._store.finished_beyond(limit) if limit else []:
            if job.fine_tuned_model is None or not self._was_promoted(job.fine_tuned_model):
                shutil.rmtree(paths.job_directory(self._home, job.id), ignore_errors=True)
                self._store.remove_finished(job.id)
                removed += 1
        if removed:
            log.info("removed finished jobs beyond --max-key-finished-jobs", extra={"jobs": removed, "limit": limit})

    def _was_promoted(self, model: str) -> bool:
        """Whether a version, `ft:…:v2`, ever served."""
        name, version = parse_name(model)
        moves = (line for line in self._registry.ledger(name) if line.get("action") in ("promote", "rollback"))
        return any(line.get("version") == version for line in moves)


def _to_outcome(status: Status) -> str:
    """The outcome of an attempt; another worker may already run a job that this one queued again."""
    return status if status in TERMINAL or status == "paused" else "queued"


def work(settings: Settings, *, command: Sequence[str] = TRAINER, check: Check | None = None) -> int:
    """Run a worker in this process until SIGTERM or SIGINT; a second signal ends it at once."""
    prepare_home(settings.home)
    worker = Worker(settings, command=command, check=check)
    listen(worker.metrics.registry, settings.host, settings.metrics_port)

    def stop() -> None:
        if worker.stopping.is_set():
            os._exit(1)
        worker.stop()

    on_signals(stop)
    return worker.work()
