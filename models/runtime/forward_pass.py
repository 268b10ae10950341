"""What surrounds a forward pass: the errors of its device as ours, its threads and their processors."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.errors import DeviceLost, ModelOutOfMemory
from models.runtime import cpu
from models.runtime.memory import is_out_of_memory

log = logging.getLogger(__name__)

# An addition of this many values is large enough for PyTorch to use two threads.
_PARALLEL_SIZE = 1 << 17


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
