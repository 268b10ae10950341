"""What engines share of a device: how many batches compute on it at once, and with how many threads each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _keep(threads: int) -> None:
    """Leave PyTorch's own count, as on a device whose batches are not computed by threads."""


class Device:
    """Room for `runners` batches at a time. On a CPU they share its `threads`; one that computes alone has them all.

    `use` sets how many threads the thread that calls it computes with: OpenMP and MKL keep that number for each. Always the
    same one is to compute alone: where several have computed with more threads than one, OpenMP has more threads than there are
    processors, lets them spin no longer between two operations, and takes twice the time for one short text.
    """

    def __init__(self, runners: int = 1, threads: int = 1, use: Callable[[int], None] = _keep) -> None:
        self.runners = runners
        self._threads = threads
        self._share = max(threads // runners, 1)
        self._use = use
        self._room = threading.Semaphore(runners)
        self._count = threading.Lock()
        self.busy = 0

    @contextmanager
    def computing(self, *, alone: bool = True) -> Iterator[None]:
        """Wait for room and hold it. `alone` says that nothing else of the same engine is about to be computed."""
        with self._room:
            with self._count:
                self.busy += 1
                alone = alone and self.busy == 1
            self._use(self._threads if alone else self._share)
            try:
                yield
            finally:
                with self._count:
                    self.busy -= 1

    def keep_to_share(self) -> None:
        """Have the calling thread compute with a runner's share, as one should that loads a model while others serve."""
        self._use(self._share)
