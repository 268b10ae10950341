"""The worker: keeps a lease, runs the jobs that the queue hands it, and looks for jobs that nobody runs."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence

from models.errors import SondeError
from models.registry.registry import Registry
from service.config import Settings
from service.errors import LeaseLost, Unavailable
from service.jobs import golden_check, paths
from service.jobs.attempt import AttemptRunner
from service.jobs.database import DATABASE_UNAVAILABLE, Database
from service.jobs.feedback import Feedback
from service.jobs.files import Files
from service.jobs.leases import LeaseRenewer, Leases
from service.jobs.progress import ProgressDisplay
from service.jobs.publishing import Check, Publisher
from service.jobs.queue import DbosEngine
from service.jobs.records import TERMINAL, Failure, Job, Status
from service.jobs.store import Store
from service.jobs.training_process import TRAINER
from service.metrics import JobMetrics, listen
from service.processes.signals import on_signals

log = logging.getLogger(__name__)

_ABANDONED_UPLOAD_S = 24 * 3600.0
_REMOVE_STALE_EVERY_S = 3600.0
# How much later than others a job's end may be seen that has an earlier time: a transaction takes its time before it
# ends.
_LATE_S = 60.0


class Worker:
    """One worker process; `work` blocks until `stop`."""

    def __init__(self, settings: Settings, *, command: Sequence[str] = TRAINER, check: Check | None = None) -> None:
        self._settings = settings
        self._home = settings.home.absolute()
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._database = Database(settings.database_url, self._home)
        self._store = Store(self._database, self._home, settings.job_lease_s)
        self._leases = Leases(self._database, settings.job_lease_s)
        self.metrics = JobMetrics()
        self._keeper = LeaseRenewer(
            self._leases,
            self.name,
            socket.gethostname(),
            os.getpid(),
            on_renewed=self.metrics.heartbeat.set_to_current_time,
        )
        self._engine = DbosEngine(settings.database_url, self._home)
        self._files = Files(self._database, self._home, settings.max_file_bytes)
        self.stopping = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._running: tuple[str, int] | None = None
        self._tidied_until = 0.0
        self._remove_stale_at = 0.0
        registry = Registry(self._home / "models")
        publisher = Publisher(
            self._store,
            registry,
            check=check or golden_check.checker(settings),
            auto_promote=settings.auto_promote,
            max_ece=settings.max_calibration_error,
        )
        self._supervisor = AttemptRunner(
            settings,
            self._store,
            self._files,
            Feedback(self._database),
            publisher,
            self._keeper,
            command=command,
            submit=self._engine.submit,
            stopping=self.stopping,
            progress=ProgressDisplay(sys.stderr),
        )

    def work(self) -> int:
        """Take jobs until told to stop; the exit code."""
        try:
            if self._open():
                log.info("worker ready", extra={"worker": self.name})
                self._tend()
        finally:
            self._engine.stop()
            self._keeper.close()
            self._engine.close()
            self._database.close()
        return 0

    def _tend(self) -> None:
        """Look after jobs that nobody runs, and what they left, until told to stop; then wait for what runs here."""
        self._count_jobs()
        while not self.stopping.wait(self._settings.job_lease_s / 4):
            self._look_for_stranded()
            self._remove_leftovers()
            self._count_jobs()
        self._idle.wait(self._settings.job_stop_s + self._settings.job_lease_s)

    def stop(self) -> None:
        """End: what runs writes a checkpoint, and is queued again."""
        self.stopping.set()

    def _open(self) -> bool:
        """Open everything, waiting for the database where it is not there yet; False when told to stop meanwhile."""
        steps: list[Callable[[], None]] = [self._store.migrate, self._engine.migrate, self._keeper.open, self._start]
        while steps and not self.stopping.is_set():
            try:
                steps[0]()
                steps.pop(0)
            except DATABASE_UNAVAILABLE as error:
                log.warning("waiting for the database: %s", error.message)
                self.stopping.wait(self._settings.job_poll_s)
        return not steps

    def _start(self) -> None:
        self._engine.start(self.name, self._run, self._settings.job_poll_s)

    def _run(self, job: str, dispatch: int) -> None:
        """What the queue calls, in a thread of its own. Never raises: the queue knows nothing that would help."""
        if self.stopping.is_set():
            return
        self._idle.clear()
        self._running = job, dispatch
        try:
            claimed = self._store.claim(job, dispatch, self._keeper.lease, self._settings.job_attempts)
            if claimed is not None:
                self._measured(claimed)
        except SondeError as error:  # nothing was begun; the look for stranded jobs queues it again
            log.warning("a job could not be begun: %s", error.message, extra={"job": job})
        finally:
            self._running = None
            self._idle.set()

    def _measured(self, job: Job) -> None:
        began = time.monotonic()
        with self.metrics.running.track_inprogress():
            outcome = self._attempt(job)
        self.metrics.ended(outcome, time.monotonic() - began)

    def _attempt(self, job: Job) -> str:
        """One of ATTEMPT_OUTCOMES."""
        try:
            return _outcome(self._supervisor.run(job))
        except LeaseLost as error:
            log.warning("stopped: %s", error.message, extra={"job": job.id, "attempt": job.attempt})
            return "lost"
        except DATABASE_UNAVAILABLE as error:
            log.warning("the job is left to who finds it: %s", error.message, extra={"job": job.id})
            self._let_go()
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
            self._let_go()

    def _let_go(self) -> None:
        """Drop the lease, so that the job counts as lost even though this worker lives on."""
        try:
            self._keeper.drop()
        except DATABASE_UNAVAILABLE as error:
            log.warning("the lease expires by itself: %s", error.message)

    def _count_jobs(self) -> None:
        try:
            self.metrics.count(self._store.counts(), len(self._leases.workers()))
        except DATABASE_UNAVAILABLE as error:
            log.warning("jobs cannot be counted: %s", error.message)

    def _look_for_stranded(self) -> None:
        try:
            for job in self._store.stranded(self._settings.job_lease_s / 4):
                alive = self._leases.workers()
                # The queue may not have heard of the end of what ran here: it ended while the database was away.
                if self._running != (job.id, job.dispatch):
                    alive -= {self.name}
                if not self._engine.ensure(job.id, job.dispatch, alive):
                    dispatch = self._store.redispatch(job.id, job.dispatch)
                    if dispatch is not None:
                        self._engine.submit(job.id, dispatch)
        except DATABASE_UNAVAILABLE as error:
            log.warning("no look for stranded jobs: %s", error.message)

    def _remove_leftovers(self) -> None:
        """Remove what finished jobs left that nobody ran when they ended; those that ended before the last look were
        seen to then.

        Now and then, also what uploads that never ended have left.
        """
        try:
            if time.monotonic() >= self._remove_stale_at:
                self._remove_stale_at = time.monotonic() + _REMOVE_STALE_EVERY_S
                self._files.remove_stale_uploads(_ABANDONED_UPLOAD_S, time.time())
            for job, at in self._store.ended(self._tidied_until - _LATE_S):
                paths.remove_leftovers(self._home, job)
                self._tidied_until = max(self._tidied_until, at)
        except (Unavailable, OSError) as error:
            log.warning("finished jobs are not tidied: %s", error)


def _outcome(status: Status) -> str:
    """How an attempt ended, by its job's status then: what is queued again may already be run by another worker."""
    return status if status in TERMINAL or status == "paused" else "queued"


def work(settings: Settings, *, command: Sequence[str] = TRAINER, check: Check | None = None) -> int:
    """Run a worker in this process until SIGTERM or SIGINT; a second signal ends it at once."""
    settings.home.mkdir(parents=True, exist_ok=True)
    worker = Worker(settings, command=command, check=check)
    listen(worker.metrics.registry, settings.host, settings.metrics_port)

    def stop() -> None:
        if worker.stopping.is_set():
            os._exit(1)
        worker.stop()

    on_signals(stop)
    return worker.work()
