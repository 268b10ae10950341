"""A lock between threads, processes and machines that a holder which stands still for good does not keep."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.errors import LockLost, RegistryBusy
from models.filesystem import Permit, temporary_in

log = logging.getLogger(__name__)

LEASE_S = 4.0
_POLL_S = 0.02
_RENEWALS = 5


class FencedLock:
    """The lock `<path>`, with a lease and fencing tokens.

    The holder has the `flock` of the lock's file, and renews its lease by the file's time of change. Where that stands
    still for `lease_s` by the clock of a waiter, the holder is frozen or its machine is gone. The waiter then makes
    the file `<path>-<n + 1>`, where n is the holder's number, and is the holder from then on. The number is the fencing
    token: a holder whose number is not the highest has lost the lock.
    """

    def __init__(self, path: Path, *, lease_s: float = LEASE_S, max_wait_s: float | None = None) -> None:
        self._path = path
        self._lease_s = lease_s
        self._max_wait_s = max_wait_s

    @contextmanager
    def hold(self) -> Iterator[Permit]:
        """Hold the lock; what it gives raises LockLost once another process has taken the lock over.

        The next holder has to remove the unfinished files of the one before, see `models.filesystem.commit`.

        Raises RegistryBusy where others hold it for longer than `max_wait_s`.
        """
        number, lock = self._acquire()
        released = threading.Event()
        renewer = threading.Thread(target=self._renew, args=(lock, released), name="renew-lock", daemon=True)
        renewer.start()
        try:
            self._remove_below(number)
            yield lambda: self._require(number)
        except FileNotFoundError:
            self._require(number)  # the next holder removed the unfinished files
            raise
        finally:
            released.set()
            renewer.join()
            os.close(lock)

    def _acquire(self) -> tuple[int, int]:
        """Wait for the lock: its number, and the descriptor of its file."""
        began = changed_at = time.monotonic()
        seen: tuple[int, int] | None = None
        while True:
            number = self._newest()
            lock = _lock_or_none(self._numbered(number))
            if lock is None:
                now = (number, _changed_ns(self._numbered(number)))
                if now != seen:
                    seen, changed_at = now, time.monotonic()
                elif time.monotonic() - changed_at >= self._lease_s:
                    lock = self._take_over(number)
                    number += 1
            if lock is not None:
                if number == self._newest():
                    os.utime(lock)
                    return number, lock
                os.close(lock)
            elif self._max_wait_s is not None and time.monotonic() - began >= self._max_wait_s:
                raise RegistryBusy(f"another process has been changing {self._path.parent.name} for a while: try again")
            else:
                time.sleep(_POLL_S)

    def _take_over(self, number: int) -> int | None:
        """Hold the lock of the next number; None where another waiter was first."""
        temporary = temporary_in(self._path.parent)
        lock = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            os.link(temporary, self._numbered(number + 1))  # fails where that number is taken
        except (FileExistsError, FileNotFoundError):  # another holder removes unfinished files
            os.close(lock)
            return None
        finally:
            temporary.unlink(missing_ok=True)
        log.warning("a lock was not renewed for %g s and is taken over: %s", self._lease_s, self._path)
        return lock

    def _renew(self, lock: int, released: threading.Event) -> None:
        while not released.wait(self._lease_s / _RENEWALS):
            os.utime(lock)

    def _require(self, number: int) -> None:
        if self._newest() != number:
            raise LockLost(f"this process stood still, and another one changes {self._path.parent.name} now: try again")

    def _remove_below(self, number: int) -> None:
        """Remove the files of lower numbers, which are out of use."""
        for path in self._path.parent.glob(f"{self._path.name}*"):
            if self._number(path) < number:
                path.unlink(missing_ok=True)

    def _newest(self) -> int:
        return max(map(self._number, self._path.parent.glob(f"{self._path.name}-*")), default=0)

    def _number(self, path: Path) -> int:
        digits = path.name.removeprefix(self._path.name).removeprefix("-")
        return int(digits) if digits.isascii() and digits.isdigit() else 0

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}-{number}") if number else self._path


def _lock_or_none(path: Path) -> int | None:
    """The descriptor of a file whose lock is held now; None while another descriptor holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _changed_ns(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0
