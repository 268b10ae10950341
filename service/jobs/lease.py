"""A worker's lease, renewed in a thread of its own; who stops renewing has lost it, whether it knows or not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from service.jobs.database import AWAY
from service.jobs.leases import Leases

log = logging.getLogger(__name__)


class LeaseKeeper:
    """Holds a lease for worker `worker`. `holds` needs no database: a lease that was not renewed in time is taken for lost."""

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
        except AWAY:
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
            except AWAY as error:
                log.warning("the lease could not be renewed: %s", error.message)
            except Exception:  # whatever a broken database makes a library raise; a worker that never renews again could do nothing
                log.exception("the lease could not be renewed")
