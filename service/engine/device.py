"""A compute device: how many batches run on it at once, and with how many threads each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol

import numpy as np

from models.preemption import NO_PREEMPTION, Preemption, PreemptionFlag


class ComputeThreads(Protocol):
    """Sets the compute threads of the calling thread; `alone` if nothing else computes."""

    def __call__(self, threads: int, *, alone: bool) -> AbstractContextManager[object]: ...  # noqa: D102


def _keep_threads(threads: int, *, alone: bool) -> AbstractContextManager[object]:
    """Keep PyTorch's own number, as on a device that does not compute with threads."""
    return nullcontext()


class ComputeDevice:
    """Room for `runners` batches. On a CPU they share its threads, `share` each; one alone has them all.

    More threads than processors would wait for each other at every operation, a time slice each time. The same thread
    should always be the one that runs alone: after several threads have computed with more than one OpenMP thread,
    OpenMP has more threads than processors, stops spinning between operations, and takes twice as long for one short
    text.
    """

    def __init__(self, runners: int = 1, threads: int = 1, compute_threads: ComputeThreads = _keep_threads) -> None:
        self.runners = runners
        self.share = max(threads // runners, 1)
        self.busy = 0
        self._threads = threads
        self._compute_threads = compute_threads
        self._room = threading.Semaphore(runners)
        self._lock = threading.Lock()
        self._solo: _SoloBatch | None = None

    @contextmanager
    def computing(self, *, alone: bool = True) -> Iterator[Preemption]:
        """Hold room for a batch. `alone`: the engine is about to compute nothing else.

        The batch calls the yielded preemption between its layers. Once other batches run too, the call lowers the
        threads to a share. Where that cannot happen it is NO_PREEMPTION.
        """
        with self._room, self._counted(alone=alone) as solo:
            if solo is None:
                with self.sharing():
                    yield NO_PREEMPTION
            else:
                with self._compute_threads(self._threads, alone=True), solo.lowered_threads:
                    yield solo if self.runners > 1 else NO_PREEMPTION

    def sharing(self) -> AbstractContextManager[object]:
        """Compute with one runner's share of the threads."""
        return self._compute_threads(self.share, alone=False)

    @contextmanager
    def _counted(self, *, alone: bool) -> Iterator[_SoloBatch | None]:
        """Count a batch as running: as the solo batch, or one that raises the solo batch's flag."""
        with self._lock:
            self.busy += 1
            solo = _SoloBatch(self) if alone and self.busy == 1 else None
            if solo is not None:
                self._solo = solo
            elif self._solo is not None:
                self._solo.others_began[0] = True
        try:
            yield solo
        finally:
            with self._lock:
                self.busy -= 1
                if solo is not None:
                    self._solo = None


class _SoloBatch:
    """Lowers the threads of a batch that runs alone to a share once others run too."""

    def __init__(self, device: ComputeDevice) -> None:
        self.others_began: PreemptionFlag = np.array([False])
        self.flags: tuple[PreemptionFlag, ...] = (self.others_began,)
        self.lowered_threads = ExitStack()
        self._device = device

    def __call__(self) -> None:
        self.others_began[0] = False  # lowered first, so that a batch that begins now raises it again
        if self.flags and self._device.busy > 1:
            self.flags = ()
            self.lowered_threads.enter_context(self._device.sharing())
