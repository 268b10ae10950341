"""The C library's heap, told to keep what a forward pass lets go of: the next one asks for the same again at once."""

from __future__ import annotations

import ctypes
import os

# The names of two settings in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# From where on a block is mapped by itself, and goes back to the system when it is let go of: as large as glibc allows.
_MAPPED_BYTES = 32 * 2**20
# How much the heap may have free at its end before it gives that back.
_KEPT_BYTES = 64 * 2**20
_SET_BY_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed() -> bool:
    """Keep up to 64 MiB that tensors have let go of, where glibc by itself gives most of it back and asks the system for it again, page
    by page. Returns whether it does so now: with another C library, and where the user has set the like, nothing changes.
    """
    if any(name in os.environ for name in _SET_BY_USERS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES) and mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
