"""Jobs, their events and checkpoints, as callers and workers read and write them.

Workers claim jobs here. An attempt's writes are fenced by attempt number and lease. A statement of attempt 2 changes
nothing once attempt 3 has begun, or once its own lease has expired. All methods block; call them from threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from service.errors import JobState, LeaseLost
from service.jobs import tables
from service.jobs.database import Database, take_lock
from service.jobs.idempotency import find_answer, keep_answer
from service.jobs.job_rows import CANCELLED, JobRows
from service.jobs.leases import in_force
from service.jobs.principal import WORKER, Principal
from service.jobs.quotas import UNLIMITED, Quotas
from service.jobs.records import (
    BEGUN,
    TERMINAL,
    Checkpoint,
    Control,
    Failure,
    IdempotencyKey,
    Job,
    JobEvent,
    NewJob,
    Status,
    Success,
    from_row,
)
from service.jobs.tables import jobs, owners, worker_lease

_TURNS_LOCK = 0x50DDF  # any number, the same in every process
_NO_OWNER = ""  # takes turns for the jobs from before owners
_PAUSED = JobEvent("info", "The job was paused")
_RESUMED = JobEvent("info", "The job was resumed")
_COMPLETED = JobEvent("info", "The job has successfully completed")

T = TypeVar("T", JobEvent, Checkpoint)


class JobStore(JobRows):
    """The jobs of one database."""

    def __init__(
        self,
        database: Database,
        home: Path,
        lease_s: float = 15.0,
        principal: Principal = WORKER,
        quotas: Quotas = UNLIMITED,
    ) -> None:
        super().__init__(database, lease_s, principal)
        self.home = home
        self._quotas = quotas

    def migrate(self) -> None:
        """Bring the tables up to date; see `Database.migrate`."""
        self.database.migrate()

    # Called by the API.

    def create(
        self, new: NewJob, render: Callable[[Job], dict[str, Any]], idempotency_key: IdempotencyKey | None = None
    ) -> dict[str, Any]:
        """Queue a job unless a request with the same `idempotency_key` did before.

        Returns the answer that `render` made for the caller, now or then. Raises TooManyJobs, and IdempotencyConflict
        when the key came with another body before.
        """
        with self.database.write() as connection:
            if idempotency_key is not None and (before := self._find_answer(connection, idempotency_key)) is not None:
                return before
            self._quotas.admit(connection, self._principal, "jobs")
            now = self.database.now(connection)
            connection.execute(jobs.insert().values(**asdict(new), created_at=now, status="queued"))
            self._add_event(connection, new.id, 0, JobEvent("info", f"Created fine-tuning job: {new.id}"))
            answer = render(self._get(connection, new.id))
            if idempotency_key is not None:
                keep_answer(connection, idempotency_key, answer, now)
            return answer

    def find_answer(self, idempotency_key: IdempotencyKey) -> dict[str, Any] | None:
        """The answer to an earlier request with the same key, also when its file or model is gone.

        Raises IdempotencyConflict when the key came with another body before.
        """
        with self.database.write() as connection:
            return self._find_answer(connection, idempotency_key)

    def get(self, job: str) -> Job:
        """A job by its id. Raises JobNotFound."""
        with self.database.read() as connection:
            return self._get(connection, job)

    def page(self, after: str | None, limit: int, metadata: Mapping[str, str] | None = None) -> tuple[list[Job], bool]:
        """A page of jobs, newest first, from below `after` where it is given, and whether there are more."""
        with self.database.read() as connection:
            query = self._visible().order_by(jobs.c.seq.desc())
            if after is not None:
                query = query.where(jobs.c.seq < self._get(connection, after).seq)
            for key, value in (metadata or {}).items():
                query = query.where(jobs.c.metadata[key].as_string() == value)
            found = [from_row(Job, row) for row in connection.execute(query.limit(limit + 1))]
        return found[:limit], len(found) > limit

    def request_control(self, job: str, control: Control) -> Job:
        """Cancel or pause a job: at once when no worker runs it, else its worker does so when it next looks.

        Raises JobState when the job is finished, or when a pause follows a cancel.
        """
        with self.database.write() as connection:
            row = self._get(connection, job, lock=True)
            _refuse_finished(row, control)
            if row.control == "cancel" and control == "pause":
                raise JobState(f"{job} is being cancelled: it cannot be paused any more")
            if row.status in BEGUN and self._in_force(connection, row.lease):
                self._update(connection, job, control=control)
            elif control == "cancel":
                self._finish(connection, row, "cancelled", CANCELLED)
            elif row.status != "paused":
                self._release(connection, row, "paused", _PAUSED)
            return self._get(connection, job)

    def resume(self, job: str) -> Job:
        """Queue a paused job again, or withdraw a request to pause it. Raises JobState when there is neither."""
        with self.database.write() as connection:
            row = self._get(connection, job, lock=True)
            _refuse_finished(row, "resume")
            if row.status == "paused":
                self._release(connection, row, "queued", _RESUMED)
            elif row.control == "pause":
                self._update(connection, job, control=None)
            else:
                raise JobState(f"{job} is {row.status}: only a paused job can be resumed")
            return self._get(connection, job)

    def events(self, job: str, after: int | None, limit: int) -> tuple[list[JobEvent], bool]:
        """A page of a job's events, newest first, from below event `after`, and whether there are more."""
        return self._page(JobEvent, tables.events, job, after, limit)

    def checkpoints(self, job: str, after: int | None, limit: int) -> tuple[list[Checkpoint], bool]:
        """A page of a job's checkpoints, newest first, and whether there are more."""
        return self._page(Checkpoint, tables.checkpoints, job, after, limit)

    def has_worker(self) -> bool:
        """Whether any worker's lease is in force."""
        with self.database.read() as connection:
            now = self.database.now(connection)
            query = sa.select(worker_lease.c.id).where(in_force(now, self._lease_s)).limit(1)
            return connection.execute(query).first() is not None

    # Called by workers.

    def counts(self) -> dict[str, int]:
        """The number of jobs by status."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status))
            return {status: int(count) for status, count in rows}

    def finished_since(self, since: float) -> list[tuple[str, float]]:
        """The jobs that finished at `since` or later, each with its time, oldest first."""
        finished_at = jobs.c.finished_at
        query = sa.select(jobs.c.id, finished_at).where(finished_at >= since).order_by(finished_at)
        with self.database.read() as connection:
            return [(job, float(at)) for job, at in connection.execute(query)]

    def finished_beyond(self, limit: int) -> list[Job]:
        """Finished jobs of each owner but for its newest `limit`, oldest first."""
        order = sa.func.row_number().over(partition_by=jobs.c.owner, order_by=jobs.c.seq.desc())
        finished = sa.select(jobs.c.seq, order.label("place")).where(jobs.c.status.in_(TERMINAL)).subquery()
        beyond = sa.select(finished.c.seq).where(finished.c.place > limit)
        with self.database.read() as connection:
            rows = connection.execute(sa.select(jobs).where(jobs.c.seq.in_(beyond)).order_by(jobs.c.seq))
            return [from_row(Job, row) for row in rows]

    def remove_finished(self, job: str) -> None:
        """Remove a finished job with its events and checkpoints; one that is gone already is ignored."""
        with self.database.write() as connection:
            done = connection.execute(jobs.delete().where(jobs.c.id == job, jobs.c.status.in_(TERMINAL)))
            if done.rowcount:
                for table in (tables.events, tables.checkpoints):
                    connection.execute(table.delete().where(table.c.job == job))

    def claim(self, lease: str, max_crashes: int) -> Job | None:
        """Begin an attempt at a job that is queued or whose worker's lease has expired; None without one.

        Owners take turns: the one whose last attempt began longest ago comes first, with its oldest job. Fails jobs
        whose workers died `max_crashes` times since the last checkpoint. Raises LeaseLost when `lease` has expired.
        """
        with self.database.read() as connection:
            if connection.execute(sa.select(jobs.c.id).where(self._waits(connection)).limit(1)).first() is None:
                return None  # a worker that is stopped while it only polls must not hold SQLite's one lock
        with self.database.write() as connection:
            take_lock(connection, _TURNS_LOCK)  # each claim sees whose turn it is after the one before
            while (row := self._next(connection)) is not None:
                crashes = row.crashes + (row.status in BEGUN)
                if crashes < max_crashes:
                    return self._begin(connection, row, lease, crashes)
                why = f"its worker died {crashes} times without a new checkpoint"
                self._fail(connection, row, Failure("worker_lost", why))
            return None

    def record(
        self,
        job: Job,
        *,
        events: Sequence[JobEvent] = (),
        checkpoints: Sequence[Checkpoint] = (),
        status: Status | None = None,
    ) -> None:
        """Write an attempt's events, checkpoints and status. Raises LeaseLost when the attempt is not the current."""
        with self.database.write() as connection:
            self._fence(connection, job)
            now = self.database.now(connection)
            changes: dict[str, Any] = {} if status is None else {"status": status}
            for event in events:
                self._add_event(connection, job.id, job.attempt, event, now)
                left_s = (event.data or {}).get("eta_s") if event.type == "metrics" else None
                if isinstance(left_s, int | float):
                    changes["estimated_finish"] = now + left_s
            for one in checkpoints:
                row = {"job": job.id, "attempt": job.attempt, "created_at": now}
                row |= {"step": one.step, "path": one.path, "metrics": one.metrics}
                connection.execute(tables.checkpoints.insert().values(**row))
                changes["crashes"] = 0  # training advanced, so earlier crashes no longer count
            if changes:
                self._update(connection, job.id, **changes)

    def fence(self, job: Job) -> Job:
        """The job as it is now. Raises LeaseLost when the attempt is not the current one."""
        with self.database.write() as connection:
            return self._fence(connection, job)

    def succeed(self, job: Job, success: Success, *events: JobEvent) -> None:
        """End an attempt with a model. This and the methods below raise LeaseLost as `fence` does."""
        with self.database.write() as connection:
            row = self._fence(connection, job)
            for event in events:
                self._add_event(connection, job.id, job.attempt, event)
            self._finish(connection, row, "succeeded", _COMPLETED, **asdict(success))

    def fail(self, job: Job, failure: Failure) -> None:
        """End an attempt, and its job, with an error."""
        with self.database.write() as connection:
            self._fail(connection, self._fence(connection, job), failure)

    def cancel(self, job: Job) -> None:
        """End an attempt, and its job, because a caller cancelled it."""
        with self.database.write() as connection:
            self._finish(connection, self._fence(connection, job), "cancelled", CANCELLED)

    def pause(self, job: Job) -> Status:
        """End an attempt because a caller paused it; queue the job if the caller has resumed it meanwhile."""
        with self.database.write() as connection:
            row = self._fence(connection, job)
            self._release(connection, row, "queued", _RESUMED if row.control is None else _PAUSED)
            return self._get(connection, job.id).status

    def requeue(self, job: Job, why: str) -> None:
        """End an attempt whose worker stops, and queue the job."""
        with self.database.write() as connection:
            self._release(connection, self._fence(connection, job), "queued", JobEvent("info", why))

    def requeue_crashed(self, job: Job, failure: Failure, max_crashes: int) -> None:
        """End an attempt that died: queue the job, or fail it after `max_crashes` without a checkpoint."""
        with self.database.write() as connection:
            row = self._fence(connection, job)
            if row.crashes + 1 >= max_crashes:
                self._fail(connection, row, failure)
                return
            self._update(connection, job.id, crashes=row.crashes + 1)
            how = "the job goes on from its newest checkpoint, or begins again where it has none"
            self._release(connection, row, "queued", JobEvent("warn", f"{failure.message}; {how}"))

    # Within a transaction.

    def _find_answer(self, connection: sa.Connection, idempotency_key: IdempotencyKey) -> dict[str, Any] | None:
        return find_answer(connection, idempotency_key, self.database.now(connection))

    def _next(self, connection: sa.Connection) -> Job | None:
        """The next owner's oldest job that no worker runs, locked. Jobs that others have locked are skipped."""
        last_attempt_at = sa.func.coalesce(owners.c.last_attempt_at, 0)
        query = sa.select(jobs).outerjoin(owners, owners.c.id == sa.func.coalesce(jobs.c.owner, _NO_OWNER))
        query = query.where(self._waits(connection)).order_by(last_attempt_at, jobs.c.seq).limit(1)
        row = connection.execute(query.with_for_update(of=jobs, skip_locked=True)).first()
        if row is None or (row.status in BEGUN and self._in_force(connection, row.lease)):
            return None  # the second: another worker claimed the row, under a new lease, before this one locked it
        return from_row(Job, row)

    def _waits(self, connection: sa.Connection) -> sa.ColumnElement[bool]:
        """Whether a job is queued, or was begun by a worker whose lease has expired."""
        now = self.database.now(connection)
        held = sa.exists().where(worker_lease.c.id == jobs.c.lease, in_force(now, self._lease_s))
        return (jobs.c.status == "queued") | (jobs.c.status.in_(BEGUN) & ~held)

    def _take_turn(self, connection: sa.Connection, owner: str) -> None:
        now = self.database.now(connection)
        known = owners.update().where(owners.c.id == owner).values(last_attempt_at=now)
        if connection.execute(known).rowcount == 0:
            connection.execute(owners.insert().values(id=owner, last_attempt_at=now))

    def _begin(self, connection: sa.Connection, row: Job, lease: str, crashes: int) -> Job:
        if not self._in_force(connection, lease):
            raise LeaseLost("the worker's lease has expired")
        if row.status in BEGUN:
            lost = JobEvent("warn", f"The worker of attempt {row.attempt} is gone; the job goes on")
            self._add_event(connection, row.id, row.attempt, lost)
        self._take_turn(connection, row.owner or _NO_OWNER)
        values = {"attempt": row.attempt + 1, "crashes": crashes, "lease": lease}
        started_at = row.started_at or self.database.now(connection)
        self._update(connection, row.id, status="validating_files", started_at=started_at, **values)
        return self._get(connection, row.id)

    def _page(self, kind: type[T], table: sa.Table, job: str, after: int | None, limit: int) -> tuple[list[T], bool]:
        with self.database.read() as connection:
            self._get(connection, job)
            query = sa.select(table).where(table.c.job == job).order_by(table.c.seq.desc())
            if after is not None:
                query = query.where(table.c.seq < after)
            found = [from_row(kind, row) for row in connection.execute(query.limit(limit + 1))]
        return found[:limit], len(found) > limit


def _refuse_finished(job: Job, change: str) -> None:
    if job.status in TERMINAL:
        raise JobState(f"{job.id} is {job.status} and cannot be changed any more ({change})")
