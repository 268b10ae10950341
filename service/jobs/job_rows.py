"""Rows of jobs inside a transaction: read, fenced, changed, and told as events."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.errors import JobNotFound, LeaseLost
from service.jobs import tables
from service.jobs.database import Database
from service.jobs.leases import in_force
from service.jobs.principal import Principal, SeenByPrincipal
from service.jobs.records import BEGUN, Failure, Job, JobEvent, Status, from_row
from service.jobs.tables import jobs, worker_lease

CANCELLED = JobEvent("info", "The job was cancelled")


class JobRows(SeenByPrincipal):
    """The rows that a caller sees. Each method runs in the transaction of the connection that it gets."""

    def __init__(self, database: Database, lease_s: float, principal: Principal) -> None:
        self.database = database
        super().__init__(principal)
        self._lease_s = lease_s

    def _get(self, connection: sa.Connection, job: str, *, lock: bool = False) -> Job:
        query = self._visible().where(jobs.c.id == job)
        row = connection.execute(query.with_for_update() if lock else query).first()
        if row is None:
            raise JobNotFound(f"no fine-tuning job {job!r}", param="fine_tuning_job_id")
        return from_row(Job, row)

    def _visible(self) -> sa.Select[Any]:
        return sa.select(jobs).where(self._principal.sees(jobs.c.owner))

    def _in_force(self, connection: sa.Connection, lease: str | None) -> bool:
        now = self.database.now(connection)
        query = sa.select(worker_lease.c.id).where(worker_lease.c.id == lease, in_force(now, self._lease_s))
        return connection.execute(query).first() is not None

    def _fence(self, connection: sa.Connection, job: Job) -> Job:
        row = self._get(connection, job.id, lock=True)
        current = (row.attempt, row.lease) == (job.attempt, job.lease) and row.status in BEGUN
        if not current or not self._in_force(connection, job.lease):
            raise LeaseLost(f"attempt {job.attempt} of {job.id} is not the current one")
        return row

    def _update(self, connection: sa.Connection, job: str, **values: Any) -> None:
        connection.execute(jobs.update().where(jobs.c.id == job).values(**values))

    def _add_event(
        self, connection: sa.Connection, job: str, attempt: int, event: JobEvent, now: float | None = None
    ) -> None:
        row = {"level": event.level, "type": event.type, "message": event.message, "data": event.data}
        created_at = self.database.now(connection) if now is None else now
        connection.execute(tables.events.insert().values(job=job, attempt=attempt, created_at=created_at, **row))

    def _finish(self, connection: sa.Connection, row: Job, status: Status, event: JobEvent, **values: Any) -> None:
        now = self.database.now(connection)
        self._add_event(connection, row.id, row.attempt, event, now)
        values |= {"control": None, "lease": None, "estimated_finish": None}
        self._update(connection, row.id, status=status, finished_at=now, **values)

    def _fail(self, connection: sa.Connection, row: Job, failure: Failure) -> None:
        values = {"error_code": failure.code, "error_message": failure.message, "error_param": failure.param}
        self._finish(connection, row, "failed", JobEvent("error", failure.message), **values)

    def _release(self, connection: sa.Connection, row: Job, status: Status, event: JobEvent) -> None:
        """Give a job the status queued or paused; a caller's request to pause or cancel it comes first."""
        if row.control == "cancel":
            self._finish(connection, row, "cancelled", CANCELLED)
            return
        status = "paused" if row.control == "pause" else status
        self._update(connection, row.id, status=status, control=None, lease=None, estimated_finish=None)
        self._add_event(connection, row.id, row.attempt, event)
