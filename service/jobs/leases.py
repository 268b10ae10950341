"""The workers' leases, as the database has them."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from service.jobs.database import Database
from service.jobs.tables import worker_lease


class Leases:
    """The workers' leases: each is renewed while its worker lives, and never again once it has expired."""

    def __init__(self, database: Database, lease_s: float) -> None:
        self._database = database
        self.lease_s = lease_s

    def open(self, worker: str, host: str, pid: int) -> str:
        """A new lease; its id."""
        lease = "lease-" + secrets.token_hex(8)
        with self._database.write() as connection:
            now = self._database.now(connection)
            connection.execute(worker_lease.delete().where(worker_lease.c.expires_at < now - 3600))
            row = {"id": lease, "worker": worker, "host": host, "pid": pid, "started_at": now, "expires_at": now + self.lease_s}
            connection.execute(worker_lease.insert().values(**row))
        return lease

    def renew(self, lease: str) -> bool:
        """Hold a lease for longer; False when it has expired."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            mine = worker_lease.update().where(worker_lease.c.id == lease, in_force(now, self.lease_s))
            return connection.execute(mine.values(expires_at=now + self.lease_s)).rowcount == 1

    def close(self, lease: str) -> None:
        """Give a lease up."""
        with self._database.write() as connection:
            connection.execute(worker_lease.delete().where(worker_lease.c.id == lease))

    def workers(self) -> frozenset[str]:
        """The workers that are alive."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            return frozenset(connection.execute(sa.select(worker_lease.c.worker).where(in_force(now, self.lease_s))).scalars())


def in_force(now: float, lease_s: float) -> sa.ColumnElement[bool]:
    """Not expired, and not from a future that a clock which was set back has left behind."""
    return worker_lease.c.expires_at.between(now, now + 2 * lease_s)
