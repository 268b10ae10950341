"""The workers' leases, as the database has them, and the thread that renews one."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from service.jobs.database import DATABASE_UNAVAILABLE, Database
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
            row = {
                "id": lease,
                "worker": worker,
                "host": host,
                "pid": pid,
                "started_at": now,
                "expires_at": now + self.lease_s,
            }
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
            return frozenset(
                connection.execute(sa.select(worker_lease.c.worker).where(in_force(now, self.lease_s))).scalars()
            )


def in_force(now: float, lease_s: float) -> sa.ColumnElement[bool]:
    """Not expired, and not from a future that a clock which was set back has left behind."""
    return worker_lease.c.expires_at.between(now, now + 2 * lease_s)


log = logging.getLogger(__name__)


class LeaseRenewer:
    """Holds a lease for worker `worker`. `holds` needs no database: a lease that was not renewed in time is taken
    for lost.
    """

    def __init__(
        self,
        leases: Leases,
        worker: str,
        host: str,
        pid: int,
        clock: Callable[[], float] = time.monotonic,
        on_renewed: Callable[[], None] = lambda: None,
    ) -> None:
        self._leases = leases
        self._about = (worker, host, pid)
        self._clock = clock
        self._on_renewed = on_renewed
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._good_until = 0.0
        self.lease = ""
        self._thread = threading.Thread(target=self._keep, name="renew-lease", daemon=True)

    def open(self) -> None:
        """Take a first lease and begin to renew it. Raises Unavailable."""
        self._take()
        self._thread.start()

    def holds(self, lease: str | None) -> bool:
        """Whether `lease` is the one that is held now."""
        return lease == self.lease and self._clock() < self._good_until

    def drop(self) -> None:
        """Give the lease up, and with it whatever was begun under it, and take another."""
        self._leases.close(self.lease)
        self._take()

    def close(self) -> None:
        """Give the lease up for good; nothing happens where none was taken."""
        if self._thread.ident is None:
            return
        self._ended.set()
        self._thread.join(2 * self._leases.lease_s)
        try:
            self._leases.close(self.lease)
        except DATABASE_UNAVAILABLE:
            log.warning("the lease could not be given up; it expires by itself")

    def renew(self) -> None:
        """Hold the lease for longer, or take a new one when it has expired."""
        began = self._clock()
        with self._lock:
            held = self._leases.renew(self.lease)
            if held:
                self._good_until = began + self._leases.lease_s
                self._on_renewed()
        if not held:
            log.warning("the lease was lost; whatever was begun under it is stopped")
            self._take()

    def _take(self) -> None:
        with self._lock:
            began = self._clock()
            self.lease = self._leases.open(*self._about)
            self._good_until = began + self._leases.lease_s
            self._on_renewed()

    def _keep(self) -> None:
        while not self._ended.wait(self._leases.lease_s / 4):
            try:
                self.renew()
            except DATABASE_UNAVAILABLE as error:
                log.warning("the lease could not be renewed: %s", error.message)
            except (
                Exception
            ):  # whatever a broken database makes a library raise; a worker that never renews again could do nothing
                log.exception("the lease could not be renewed")
