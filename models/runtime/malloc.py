"""The C library's heap, told to keep what a forward pass lets go of: the next one asks for the same again at once."""

from __future__ import annotations

import ctypes
import os

from models.runtime import cpu

# The names of settings in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# From where on a block is mapped by itself, and goes back to the system when it is let go of: as large as glibc allows.
_MAPPED_BYTES = 32 * 2**20
# How much the heap may have free at its end before it gives that back.
_KEPT_BYTES = 64 * 2**20
_LEAST_ARENAS = 2
_SET_BY_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Keep up to 64 MiB that tensors have let go of, where glibc gives most of it back and then asks the system for
    it again, page by page.

    There are then as many arenas as processors, at least two, where glibc has eight times as many, each with free
    memory of its own. Returns whether all that is so now: with another C library, and where the user has set the
    like, nothing changes.
    """
    if any(name in os.environ for name in _SET_BY_USERS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {
        _MMAP_THRESHOLD: _MAPPED_BYTES,
        _TRIM_THRESHOLD: _KEPT_BYTES,
        _ARENA_MAX: max(len(cpu.usable_processors()), _LEAST_ARENAS),
    }
    return all(mallopt(name, value) for name, value in wanted.items())
