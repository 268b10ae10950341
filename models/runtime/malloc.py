"""The heap of the C library: what is freed stays for the next forward pass, or returns to the system."""

from __future__ import annotations

import ctypes
import os

from models.runtime import cpu

# The names of settings in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# Blocks of this size are mapped by themselves and return to the system when freed: the largest size glibc allows.
_MAPPED_BYTES = 32 * 2**20
# The free memory at the heap's end from which the heap returns it.
_KEPT_BYTES = 64 * 2**20
_MIN_ARENAS = 2
_SET_BY_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Keep up to 64 MiB of freed memory, which glibc would return and fetch again.

    Also limits arenas, each with free memory of its own, to the number of processors, at least two; glibc's default is
    eight times as many. Returns whether the settings took effect. With another C library, or settings of the user,
    nothing changes.
    """
    if any(name in os.environ for name in _SET_BY_USERS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {
        _MMAP_THRESHOLD: _MAPPED_BYTES,
        _TRIM_THRESHOLD: _KEPT_BYTES,
        _ARENA_MAX: max(len(cpu.usable_processors()), _MIN_ARENAS),
    }
    return all(mallopt(name, value) for name, value in wanted.items())


def return_freed_memory() -> None:
    """Give all memory that is free now back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
