"""A compute device: its room for batches, its threads and their processors, and its errors as ours."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol

import numpy as np
import torch

from models.errors import DeviceLost, ModelOutOfMemory
from models.preemption import NO_PREEMPTION, Preemption, PreemptionFlag
from models.runtime import cpu
from models.runtime.memory import is_out_of_memory

log = logging.getLogger(__name__)

# An addition of this many values is large enough for PyTorch to use two threads.
_PARALLEL_SIZE = 1 << 17
# By default up to four runners share the threads.
_USUAL_RUNNERS = (1, 2, 3, 4)


# What the checks of a loaded model run in.
Checking = Callable[[], AbstractContextManager[object]]


class ComputeThreads(Protocol):
    """Sets the compute threads of the calling thread; `alone` if nothing else computes."""

    def __call__(self, threads: int, *, alone: bool) -> AbstractContextManager[object]: ...  # noqa: D102


def _keep_threads(threads: int, *, alone: bool) -> AbstractContextManager[object]:
    """Keep PyTorch's own number, as on a device that does not compute with threads."""
    return nullcontext()


class ComputeDevice:
    """Room for `runners` batches. On a CPU they share its threads, `share` each; one alone has them all.

    With `admits_short`, a short batch that finds no room runs beside the others, one at a time: short texts do not wait
    for the images of another engine.

    More threads than processors would wait for each other at every operation, a time slice each time. The same thread
    should always be the one that runs alone. Once several threads have computed with more than one OpenMP thread,
    OpenMP has more threads than processors. It then stops spinning between operations, and takes twice as long for one
    short text.
    """

    def __init__(
        self,
        runners: int = 1,
        threads: int = 1,
        compute_threads: ComputeThreads = _keep_threads,
        *,
        admits_short: bool = False,
    ) -> None:
        self.runners = runners
        self.share = max(threads // runners, 1)
        self.busy = 0
        self._threads = threads
        self._compute_threads = compute_threads
        self._active = 0
        self._room = threading.Semaphore(runners)
        self._short_room = threading.Semaphore(1 if admits_short else 0)
        self._lock = threading.Lock()
        self._solo: _SoloBatch | None = None

    @contextmanager
    def computing(self, *, alone: bool = True, short: bool = False) -> Iterator[Preemption]:
        """Hold room for a batch. `alone`: the engine is about to compute nothing else. `short`: it takes milliseconds.

        The batch calls the yielded preemption between its layers. Once other batches run too, the call lowers the
        threads to a share. Where that cannot happen it is NO_PREEMPTION.
        """
        with self._room_for(short=short), self._counted(alone=alone) as solo:
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
    def preparing(self) -> Iterator[None]:
        """Prepare a batch with a share of the threads, without room: no batch runs alone meanwhile."""
        with self._counted(alone=False, computes=False), self.sharing():
            yield

    @property
    def is_shared(self) -> bool:
        """Whether more than one batch computes or is prepared."""
        return self._active > 1

    @contextmanager
    def _room_for(self, *, short: bool) -> Iterator[None]:
        room = self._room
        if not room.acquire(blocking=False):
            if short and self._short_room.acquire(blocking=False):
                room = self._short_room
            else:
                room.acquire()
        try:
            yield
        finally:
            room.release()

    @contextmanager
    def _counted(self, *, alone: bool, computes: bool = True) -> Iterator[_SoloBatch | None]:
        """Count a batch as running: as the solo batch, or one that raises the solo batch's flag."""
        with self._lock:
            self.busy += computes
            self._active += 1
            solo = _SoloBatch(self) if alone and self._active == 1 else None
            if solo is not None:
                self._solo = solo
            elif self._solo is not None:
                self._solo.others_began[0] = True
        try:
            yield solo
        finally:
            with self._lock:
                self.busy -= computes
                self._active -= 1
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
        if self.flags and self._device.is_shared:
            self.flags = ()
            self.lowered_threads.enter_context(self._device.sharing())


@contextmanager
def inference_mode(device: torch.device) -> Iterator[None]:
    """Run a forward pass without autograd.

    Raises ModelOutOfMemory and DeviceLost instead of PyTorch's errors.
    """
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise ModelOutOfMemory(f"the batch does not fit the memory of {device}") from error
    except torch.AcceleratorError as error:
        raise DeviceLost(f"{device} stopped answering: {type(error).__name__}") from error
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise ModelOutOfMemory("the batch does not fit this machine's memory") from error
        raise


@contextmanager
def compute_threads(threads: int, *, alone: bool) -> Iterator[None]:
    """Compute with `threads` threads; OpenMP and MKL keep this number for each calling thread.

    With two threads, two processors and nothing else to compute (`alone`), each thread is pinned to a processor.
    Otherwise Linux may wake the second thread on the first one's processor, where both spin for tens of milliseconds
    while the other is idle. On virtual machines, whose halted processors do not count as idle, this happens after
    every pause of some 20 ms. Linux places larger teams: OpenMP ends and starts threads as it goes, and new ones would
    inherit the single processor of the thread that starts them.
    """
    torch.set_num_threads(threads)
    if alone and threads == 2 and len(_affinity.processors) == 2:
        with _affinity.pinned_pair():
            yield
    else:
        yield


@contextmanager
def threads_set_to(threads: int) -> Iterator[None]:
    """Compute with `threads` threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def leave_a_processor() -> AbstractContextManager[None]:
    """Compute with one thread less than otherwise, where there are several.

    The threads of a pass wait for each other, so one that shares its processor with other work holds up all.
    """
    return threads_set_to(max(torch.get_num_threads() - 1, 1))


def usual_thread_counts() -> list[int]:
    """The numbers of threads that batches usually have: all, the share of two to four runners, or one; ascending.

    A model may be loaded with one thread less than all.
    """
    loading = torch.get_num_threads()
    threads = max(loading, min(loading + 1, cpu.count_cores()))
    return sorted({1, loading, *(max(threads // runners, 1) for runners in _USUAL_RUNNERS)})


class _ThreadAffinity(threading.local):
    """The calling thread's processors, and whether its second thread is pinned."""

    def __init__(self) -> None:
        self.processors = cpu.usable_processors() if hasattr(os, "sched_setaffinity") else []
        self._started = False

    @contextmanager
    def pinned_pair(self) -> Iterator[None]:
        """Run on the first of two processors, with the second thread on the second."""
        first, second = self.processors
        if not self._started:
            self._pin_to({second})
            torch.ones(_PARALLEL_SIZE).add_(1)  # starts the second thread, which inherits the processor
            self._started = True
        self._pin_to({first})
        try:
            yield
        finally:  # new threads of this one inherit its processors, too
            self._pin_to({first, second})

    def _pin_to(self, processors: set[int]) -> None:
        try:
            os.sched_setaffinity(0, processors)
        except OSError as error:  # the process has other processors now, or may not choose
            log.warning("threads are not pinned: %s", error)
            self.processors = []


_affinity = _ThreadAffinity()
