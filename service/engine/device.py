"""What engines share of a device: how many batches compute on it at once, and with how many threads each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol

from models.preemption import NO_PREEMPTION, Preemption, PreemptionFlag, new_flag


class ComputeThreads(Protocol):
    """Has the calling thread compute with so many threads; `alone` while this process computes nothing else."""

    def __call__(self, threads: int, *, alone: bool) -> AbstractContextManager[object]: ...  # noqa: D102


def _unchanged(threads: int, *, alone: bool) -> AbstractContextManager[object]:
    """PyTorch's own number, as on a device whose batches are not computed by threads."""
    return nullcontext()


class ComputeDevice:
    """Room for `runners` batches at a time. On a CPU they share its `threads`; one that computes alone has them all.

    Always the same thread is to compute alone: where several have computed with more threads than one, OpenMP has
    more threads than there are processors, lets them spin no longer between two operations, and takes twice the time
    for one short text.
    """

    def __init__(self, runners: int = 1, threads: int = 1, computing_with: ComputeThreads = _unchanged) -> None:
        self.runners = runners
        self._threads = threads
        self._share = max(threads // runners, 1)
        self._computing_with = computing_with
        self._room = threading.Semaphore(runners)
        self._count = threading.Lock()
        self._alone: _ThreadYield | None = None
        self.busy = 0

    @contextmanager
    def computing(self, *, alone: bool = True) -> Iterator[Preemption]:
        """Wait for room and hold it. `alone` says that nothing else of the same engine is about to be computed.

        Gives what is to be called now and then: once others compute as well, the rest is done with a share of the
        threads. More threads than processors would wait for each other at every operation, and for a time slice each
        time. `NO_PREEMPTION` where nobody else can begin, or has: then there is nothing to call.
        """
        with self._room, ExitStack() as used:
            yield_threads = _ThreadYield(self, lambda: used.enter_context(self.sharing()))
            with self._count:
                self.busy += 1
                alone = alone and self.busy == 1
                if alone:
                    self._alone = yield_threads
                elif self._alone is not None:
                    self._alone.begun[0] = True
            used.enter_context(self._computing_with(self._threads if alone else self._share, alone=alone))
            try:
                yield yield_threads if alone and self.runners > 1 else NO_PREEMPTION
            finally:
                with self._count:
                    self.busy -= 1
                    if self._alone is yield_threads:
                        self._alone = None

    def sharing(self) -> AbstractContextManager[object]:
        """Compute with a runner's share, as who loads a model while others serve."""
        return self._computing_with(self._share, alone=False)


class _ThreadYield:
    """Has who computes alone go on with a share of the threads, once others compute as well. Its flag goes up when
    one begins.
    """

    def __init__(self, device: ComputeDevice, share: Callable[[], object]) -> None:
        self.begun = new_flag()
        self.flags: tuple[PreemptionFlag, ...] = (self.begun,)
        self._device = device
        self._share = share

    def __call__(self) -> None:
        self.begun[0] = False  # before the look, so that who begins after it is seen the next time
        if self.flags and self._device.busy > 1:
            self.flags = ()
            self._share()
