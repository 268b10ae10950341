"""How many threads the calling thread computes with, and on which processors these run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.runtime import cpu

log = logging.getLogger(__name__)

# Enough numbers that PyTorch divides their addition between two threads.
_DIVIDED = 1 << 17


@contextmanager
def compute_threads(threads: int, *, alone: bool) -> Iterator[None]:
    """Compute with so many threads; OpenMP and MKL keep their number for each thread that calls.

    Two threads of a process that has two processors, and computes nothing else meanwhile, take one each. Linux may
    wake the second on the processor of the first and leave both there, spinning, for tens of milliseconds while the
    other is idle; it does so after every pause of some 20 ms on virtual machines, whose halted processors do not
    count as idle. A larger team is left to Linux: OpenMP ends and starts its threads as it goes, and new ones would
    inherit the one processor of the thread that starts them.
    """
    torch.set_num_threads(threads)
    if alone and threads == 2 and len(_affinity.processors) == 2:
        with _affinity.pinned_pair():
            yield
    else:
        yield


class _ThreadAffinity(threading.local):
    """The calling thread's own: where it may run, and whether it has a second thread that stays where it is."""

    def __init__(self) -> None:
        self.processors = cpu.usable_processors()
        self._started = False

    @contextmanager
    def pinned_pair(self) -> Iterator[None]:
        """Run on the first of two processors, with the second thread on the second."""
        first, second = self.processors
        if not self._started:
            self._stay_on({second})
            torch.ones(_DIVIDED).add_(1)  # starts the second thread, which inherits where it may run
            self._started = True
        self._stay_on({first})
        try:
            yield
        finally:  # threads that this one starts inherit it, too
            self._stay_on({first, second})

    def _stay_on(self, processors: set[int]) -> None:
        try:
            cpu.pin_to(processors)
        except OSError as error:  # the process was given other processors since, or may not choose
            log.warning("threads run where the system puts them: %s", error)
            self.processors = []


_affinity = _ThreadAffinity()
