"""The leases of workers in the database, and the thread that renews one.

A worker holds one lease while it lives. A lease that has expired is never renewed: its worker takes a new one.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from service.jobs.database import DATABASE_UNAVAILABLE, Database
from service.jobs.tables import worker_lease

log = logging.getLogger(__name__)

_FORGET_AFTER_S = 3600


class WorkerLeases:
    """The leases in the database."""

    def __init__(self, database: Database, lease_s: float) -> None:
        self._database = database
        self.lease_s = lease_s

    def open(self, worker: str) -> str:
        """Take a new lease for a worker of this process; its id."""
        lease = "lease-" + secrets.token_hex(8)
        with self._database.write() as connection:
            now = self._database.now(connection)
            connection.execute(worker_lease.delete().where(worker_lease.c.expires_at < now - _FORGET_AFTER_S))
            row = {"id": lease, "worker": worker, "host": socket.gethostname(), "pid": os.getpid()}
            connection.execute(worker_lease.insert().values(**row, started_at=now, expires_at=now + self.lease_s))
        return lease

    def renew(self, lease: str) -> bool:
        """Extend a lease by `lease_s` from now; False when it has expired."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            unexpired = worker_lease.update().where(worker_lease.c.id == lease, in_force(now, self.lease_s))
            return connection.execute(unexpired.values(expires_at=now + self.lease_s)).rowcount == 1

    def close(self, lease: str) -> None:
        """Give a lease up."""
        with self._database.write() as connection:
            connection.execute(worker_lease.delete().where(worker_lease.c.id == lease))

    def workers(self) -> frozenset[str]:
        """The workers whose lease is in force."""
        with self._database.read() as connection:
            unexpired = in_force(self._database.now(connection), self.lease_s)
            return frozenset(connection.execute(sa.select(worker_lease.c.worker).where(unexpired)).scalars())


def in_force(now: float, lease_s: float) -> sa.ColumnElement[bool]:
    """Whether a lease has not expired, nor ends too late because the clock was set back since."""
    return worker_lease.c.expires_at.between(now, now + 2 * lease_s)


class LeaseRenewer:
    """Holds a lease for `worker` and renews it in a thread of its own.

    `holds` needs no database: a lease that was not renewed in time counts as lost.
    """

    def __init__(
        self,
        leases: WorkerLeases,
        worker: str,
        clock: Callable[[], float] = time.monotonic,
        on_renewed: Callable[[], None] = lambda: None,
    ) -> None:
        self._leases = leases
        self._worker = worker
        self._clock = clock
        self._on_renewed = on_renewed
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._good_until = 0.0
        self.lease = ""
        self._thread = threading.Thread(target=self._renew_until_closed, name="renew-lease", daemon=True)

    def open(self) -> None:
        """Take a first lease and begin to renew it. Raises Unavailable."""
        self._take()
        self._thread.start()

    def holds(self, lease: str | None) -> bool:
        """Whether `lease` is the one that is held now."""
        return lease == self.lease and self._clock() < self._good_until

    def replace(self) -> None:
        """Give the lease up, so that the attempts begun under it are lost, and take another.

        Where the database cannot do that, the lease expires by itself and the thread takes another.
        """
        with self._lock:
            given_up, self.lease, self._good_until = self.lease, "", 0.0
        self._leases.close(given_up)
        self._take()

    def close(self) -> None:
        """Give the lease up for good; do nothing where none was taken."""
        if self._thread.ident is None:
            return
        self._closing.set()
        self._thread.join(2 * self._leases.lease_s)
        try:
            self._leases.close(self.lease)
        except DATABASE_UNAVAILABLE:
            log.warning("the lease could not be given up; it expires by itself")

    def renew(self) -> None:
        """Renew the lease, or take a new one when it has expired."""
        began = self._clock()
        with self._lock:
            held = self._leases.renew(self.lease)
            if held:
                self._good_until = began + self._leases.lease_s
                self._on_renewed()
        if not held:
            log.warning(
                "the lease was not renewed within %g s, and a job begun under it stops: raise --job-lease-s where this"
                " machine or its database is often so slow",
                self._leases.lease_s,
            )
            self._take()

    def _take(self) -> None:
        with self._lock:
            began = self._clock()
            self.lease = self._leases.open(self._worker)
            self._good_until = began + self._leases.lease_s
            self._on_renewed()

    def _renew_until_closed(self) -> None:
        while not self._closing.wait(self._leases.lease_s / 4):
            try:
                self.renew()
            except DATABASE_UNAVAILABLE as error:
                log.warning("the lease could not be renewed: %s", error.message)
            except Exception:  # from a library; without renewals the worker could never take a job again
                log.exception("the lease could not be renewed")
