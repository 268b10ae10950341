"""Compute threads that are only noted, for tests of devices and runners."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from models.runtime.device import ComputeThreads


def noting(used: list[int]) -> ComputeThreads:
    """Note with how many threads is computed."""

    def compute_threads(threads: int, *, alone: bool) -> AbstractContextManager[None]:
        used.append(threads)
        assert alone == (threads == 4)
        return nullcontext()

    return compute_threads
