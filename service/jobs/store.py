"""Jobs, their events and checkpoints, and who may write them.

What an attempt writes is fenced: a statement of attempt 2 changes nothing once attempt 3 has begun, or once the
lease under which attempt 2 was begun has expired. All methods block and are called from threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.errors import IdempotencyConflict, JobNotFound, JobState, LeaseLost
from service.jobs.database import Database
from service.jobs.leases import in_force
from service.jobs.records import (
    BEGUN,
    TERMINAL,
    Checkpoint,
    Control,
    Event,
    Failure,
    IdempotencyKey,
    Job,
    NewJob,
    Status,
    Success,
    of,
)
from service.jobs.tables import checkpoints, events, idempotency, jobs, worker_lease

_KEEP_ANSWERS_S = 24 * 3600


class Store:
    """Jobs as callers and workers see them."""

    def __init__(self, database: Database, home: Path, lease_s: float = 15.0) -> None:
        self.database = database
        self.home = home
        self._lease_s = lease_s

    def migrate(self) -> None:
        """Bring the tables up to date; see `Database.migrate`."""
        self.database.migrate()

    # What callers do.

    def create(
        self, new: NewJob, render: Callable[[Job], dict[str, Any]], idempotency_key: IdempotencyKey | None = None
    ) -> tuple[dict[str, Any], bool]:
        """Queue a job; the answer to its caller as `render` makes it, or the one given before to the same
        `idempotency_key` (then False).

        Raises IdempotencyConflict when the key came with another body before.
        """
        with self.database.write() as connection:
            if idempotency_key is not None and (before := self._answered(connection, idempotency_key)) is not None:
                return before, False
            now = self.database.now(connection)
            connection.execute(
                jobs.insert().values(**asdict(new), created_at=now, status="queued", dispatch=1, attempt=0, crashes=0)
            )
            self._say(connection, new.id, 0, Event("info", f"Created fine-tuning job: {new.id}"))
            answer = render(self._get(connection, new.id))
            if idempotency_key is not None:
                row = {
                    "owner": idempotency_key.owner,
                    "key": idempotency_key.key,
                    "fingerprint": idempotency_key.fingerprint,
                    "answer": answer,
                    "created_at": now,
                }
                connection.execute(idempotency.insert().values(**row))
            return answer, True

    def answered(self, idempotency_key: IdempotencyKey) -> dict[str, Any] | None:
        """What was answered to the same request before, whatever has become of its file and model. Raises
        IdempotencyConflict.
        """
        with self.database.write() as connection:
            return self._answered(connection, idempotency_key)

    def get(self, job: str) -> Job:
        """A job by its id. Raises JobNotFound."""
        with self.database.read() as connection:
            return self._get(connection, job)

    def page(self, after: str | None, limit: int, metadata: Mapping[str, str] | None = None) -> tuple[list[Job], bool]:
        """The newest jobs, those after `after` where it is given, and whether there are more."""
        with self.database.read() as connection:
            query = sa.select(jobs).order_by(jobs.c.seq.desc())
            if after is not None:
                query = query.where(jobs.c.seq < self._get(connection, after).seq)
            for key, value in (metadata or {}).items():
                query = query.where(jobs.c.metadata[key].as_string() == value)
            found = [of(Job, row) for row in connection.execute(query.limit(limit + 1))]
        return found[:limit], len(found) > limit

    def request_control(self, job: str, request_control: Control) -> Job:
        """Cancel or pause a job: at once when nobody runs it, else its worker sees the wish.

        Raises JobState when it is finished, and for a pause when it is being cancelled.
        """
        with self.database.write() as connection:
            row = self._get(connection, job, lock=True)
            _refuse_finished(row, request_control)
            if row.control == "cancel" and request_control == "pause":
                raise JobState(f"{job} is being cancelled: it cannot be paused any more")
            if row.status in BEGUN and self._alive(connection, row.lease):
                self._set(connection, job, control=request_control)
            elif request_control == "cancel":
                self._end(connection, row, "cancelled", Event("info", "The job was cancelled"))
            elif row.status != "paused":
                self._set(connection, job, status="paused", control=None, lease=None)
                self._say(connection, job, row.attempt, Event("info", "The job was paused"))
            return self._get(connection, job)

    def resume(self, job: str) -> Job:
        """Queue a paused job again, or forget the wish to pause it. Raises JobState when it is neither."""
        with self.database.write() as connection:
            row = self._get(connection, job, lock=True)
            _refuse_finished(row, "resume")
            if row.status == "paused":
                self._requeue(connection, row, Event("info", "The job was resumed"))
            elif row.control == "pause":
                self._set(connection, job, control=None)
            else:
                raise JobState(f"{job} is {row.status}: only a paused job can be resumed")
            return self._get(connection, job)

    def events(self, job: str, after: int | None, limit: int) -> tuple[list[Event], bool]:
        """A job's newest events, those before event `after` where it is given, and whether there are more."""
        return self._page(Event, events, job, after, limit)

    def checkpoints(self, job: str, after: int | None, limit: int) -> tuple[list[Checkpoint], bool]:
        """A job's newest checkpoints."""
        return self._page(Checkpoint, checkpoints, job, after, limit)

    def counts(self) -> dict[str, int]:
        """How many jobs there are of each status that any has."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status))
            return {status: int(count) for status, count in rows}

    # What workers do.

    def stranded(self, idle_s: float) -> list[Job]:
        """Jobs that somebody should run and nobody does: queued for `idle_s` or more, or begun under a lease that
        has expired.
        """
        with self.database.read() as connection:
            now = self.database.now(connection)
            waiting = (jobs.c.status == "queued") & (jobs.c.created_at < now - idle_s)
            lost = jobs.c.status.in_(BEGUN) & ~sa.exists().where(
                worker_lease.c.id == jobs.c.lease, in_force(now, self._lease_s)
            )
            return [
                of(Job, row) for row in connection.execute(sa.select(jobs).where(waiting | lost).order_by(jobs.c.seq))
            ]

    def ended(self, since: float) -> list[tuple[str, float]]:
        """The jobs that ended at `since` or later, and when, oldest first."""
        with self.database.read() as connection:
            query = (
                sa.select(jobs.c.id, jobs.c.finished_at).where(jobs.c.finished_at >= since).order_by(jobs.c.finished_at)
            )
            return [(job, float(at)) for job, at in connection.execute(query)]

    def redispatch(self, job: str, dispatch: int) -> int | None:
        """Count a job as queued once more; its number, or None when it is no longer the dispatch that was looked at."""
        with self.database.write() as connection:
            same = (jobs.c.id == job, jobs.c.dispatch == dispatch, jobs.c.status.notin_(TERMINAL))
            changed = connection.execute(jobs.update().where(*same).values(dispatch=dispatch + 1)).rowcount
            return dispatch + 1 if changed else None

    def claim(self, job: str, dispatch: int, lease: str, most_crashes: int) -> Job | None:
        """Begin an attempt at a job that waits or whose worker is gone; None when it does neither (or has failed too
        often).
        """
        with self.database.write() as connection:
            row = self._get(connection, job, lock=True)
            taken_over = row.status in BEGUN
            if row.dispatch != dispatch or not (
                row.status == "queued" or (taken_over and not self._alive(connection, row.lease))
            ):
                return None
            if not self._alive(connection, lease):
                raise LeaseLost("the worker's lease has expired")
            crashes = row.crashes + taken_over
            if crashes >= most_crashes:
                self._fail(
                    connection, row, Failure("worker_lost", f"its worker died {crashes} times without a new checkpoint")
                )
                return None
            if taken_over:
                self._say(
                    connection,
                    job,
                    row.attempt,
                    Event("warn", f"The worker of attempt {row.attempt} is gone; the job goes on"),
                )
            now = self.database.now(connection)
            values = {
                "attempt": row.attempt + 1,
                "crashes": crashes,
                "lease": lease,
                "started_at": row.started_at or now,
            }
            self._set(connection, job, status="validating_files", **values)
            return self._get(connection, job)

    def record(
        self, job: Job, *, said: Sequence[Event] = (), saved: Sequence[Checkpoint] = (), status: Status | None = None
    ) -> None:
        """Write what an attempt reports. Raises LeaseLost when the attempt is not the current one."""
        with self.database.write() as connection:
            self._fence(connection, job)
            now = self.database.now(connection)
            changes: dict[str, Any] = {} if status is None else {"status": status}
            for event in said:
                self._say(connection, job.id, job.attempt, event, now)
                left = (event.data or {}).get("eta_s") if event.type == "metrics" else None
                if isinstance(left, int | float):
                    changes["estimated_finish"] = now + left
            for one in saved:
                values = {"job": job.id, "attempt": job.attempt, "created_at": now}
                connection.execute(
                    checkpoints.insert().values(**values, step=one.step, path=one.path, metrics=one.metrics)
                )
                changes["crashes"] = 0  # it got on, so what died before does not count against it
            if changes:
                self._set(connection, job.id, **changes)

    def fence(self, job: Job) -> Job:
        """The job as it is now. Raises LeaseLost when the attempt is not the current one."""
        with self.database.write() as connection:
            return self._fence(connection, job)

    def succeed(self, job: Job, success: Success, *said: Event) -> None:
        """End an attempt with a model."""
        with self.database.write() as connection:
            row = self._fence(connection, job)
            for event in said:
                self._say(connection, job.id, job.attempt, event)
            values = asdict(success)
            self._end(connection, row, "succeeded", Event("info", "The job has successfully completed"), **values)

    def fail(self, job: Job, failure: Failure) -> None:
        """End an attempt, and its job, with an error."""
        with self.database.write() as connection:
            self._fail(connection, self._fence(connection, job), failure)

    def cancelled(self, job: Job) -> None:
        """End an attempt because a caller wished so."""
        with self.database.write() as connection:
            self._end(connection, self._fence(connection, job), "cancelled", Event("info", "The job was cancelled"))

    def paused(self, job: Job) -> Status:
        """End an attempt because a caller wished to pause; the job is queued when the wish was taken back meanwhile."""
        with self.database.write() as connection:
            row = self._fence(connection, job)
            if row.control == "cancel":
                self._end(connection, row, "cancelled", Event("info", "The job was cancelled"))
            elif row.control == "pause":
                self._set(connection, job.id, status="paused", control=None, lease=None, estimated_finish=None)
                self._say(connection, job.id, job.attempt, Event("info", "The job was paused"))
            else:
                self._requeue(connection, row, Event("info", "The job was resumed"))
            return self._get(connection, job.id).status

    def give_back(self, job: Job, why: str) -> int:
        """End an attempt whose worker stops; the job is queued, under the dispatch number returned."""
        with self.database.write() as connection:
            return self._requeue(connection, self._fence(connection, job), Event("info", why))

    def crashed(self, job: Job, failure: Failure, most_crashes: int) -> int | None:
        """End an attempt that died: queued again under the number returned, or failed (None) after too many without
        a checkpoint.
        """
        with self.database.write() as connection:
            row = self._fence(connection, job)
            if row.crashes + 1 >= most_crashes:
                self._fail(connection, row, failure)
                return None
            self._set(connection, job.id, crashes=row.crashes + 1)
            how = "the job goes on from its newest checkpoint, or begins again where it has none"
            return self._requeue(connection, row, Event("warn", f"{failure.message}; {how}"))

    # Between the lines.

    def _answered(self, connection: sa.Connection, idempotency_key: IdempotencyKey) -> dict[str, Any] | None:
        if not self.database.embedded:  # two of the same at once: the second waits for the first
            lock = int(hashlib.sha256(f"{idempotency_key.owner} {idempotency_key.key}".encode()).hexdigest()[:15], 16)
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
        connection.execute(
            idempotency.delete().where(idempotency.c.created_at < self.database.now(connection) - _KEEP_ANSWERS_S)
        )
        row = connection.execute(
            sa.select(idempotency).where(
                idempotency.c.owner == idempotency_key.owner, idempotency.c.key == idempotency_key.key
            )
        ).first()
        if row is None:
            return None
        if row.fingerprint != idempotency_key.fingerprint:
            raise IdempotencyConflict("this Idempotency-Key was used with another body", param="Idempotency-Key")
        answer: dict[str, Any] = row.answer
        return answer

    def _get(self, connection: sa.Connection, job: str, *, lock: bool = False) -> Job:
        query = sa.select(jobs).where(jobs.c.id == job)
        row = connection.execute(query.with_for_update() if lock else query).first()
        if row is None:
            raise JobNotFound(f"no fine-tuning job {job!r}", param="fine_tuning_job_id")
        return of(Job, row)

    def _alive(self, connection: sa.Connection, lease: str | None) -> bool:
        now = self.database.now(connection)
        found = connection.execute(
            sa.select(worker_lease.c.id).where(worker_lease.c.id == lease, in_force(now, self._lease_s))
        )
        return found.first() is not None

    def _fence(self, connection: sa.Connection, job: Job) -> Job:
        row = self._get(connection, job.id, lock=True)
        current = (row.attempt, row.lease) == (job.attempt, job.lease) and row.status in BEGUN
        if not current or not self._alive(connection, job.lease):
            raise LeaseLost(f"attempt {job.attempt} of {job.id} is not the current one")
        return row

    def _set(self, connection: sa.Connection, job: str, **values: Any) -> None:
        connection.execute(jobs.update().where(jobs.c.id == job).values(**values))

    def _say(self, connection: sa.Connection, job: str, attempt: int, event: Event, now: float | None = None) -> None:
        about = {"level": event.level, "type": event.type, "message": event.message, "data": event.data}
        when = self.database.now(connection) if now is None else now
        connection.execute(events.insert().values(job=job, attempt=attempt, created_at=when, **about))

    def _end(self, connection: sa.Connection, row: Job, status: Status, event: Event, **values: Any) -> None:
        now = self.database.now(connection)
        self._say(connection, row.id, row.attempt, event, now)
        self._set(
            connection,
            row.id,
            status=status,
            control=None,
            lease=None,
            finished_at=now,
            estimated_finish=None,
            **values,
        )

    def _fail(self, connection: sa.Connection, row: Job, failure: Failure) -> None:
        values = {"error_code": failure.code, "error_message": failure.message, "error_param": failure.param}
        self._end(connection, row, "failed", Event("error", failure.message), **values)

    def _requeue(self, connection: sa.Connection, row: Job, event: Event) -> int:
        status = "paused" if row.control == "pause" else "queued"
        values = {"dispatch": row.dispatch + 1, "lease": None, "estimated_finish": None}
        if row.control == "cancel":
            self._end(connection, row, "cancelled", Event("info", "The job was cancelled"))
        else:
            self._set(connection, row.id, status=status, control=None, **values)
            self._say(connection, row.id, row.attempt, event)
        return row.dispatch + 1

    def _page(
        self, kind: type[Any], table: sa.Table, job: str, after: int | None, limit: int
    ) -> tuple[list[Any], bool]:
        with self.database.read() as connection:
            self._get(connection, job)
            query = sa.select(table).where(table.c.job == job).order_by(table.c.seq.desc())
            if after is not None:
                query = query.where(table.c.seq < after)
            found = [of(kind, row) for row in connection.execute(query.limit(limit + 1))]
        return found[:limit], len(found) > limit


def _refuse_finished(job: Job, request_control: str) -> None:
    if job.status in TERMINAL:
        raise JobState(f"{job.id} is {job.status} and cannot be changed any more ({request_control})")
