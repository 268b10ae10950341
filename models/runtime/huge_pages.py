"""Huge pages for weights: a forward pass reads all of them, and the processor finds few large pages sooner.

MiniLM's linear layers have 43 MB of weights in float32, which lie in 10,000 pages of 4 kB. A processor keeps the
addresses of some 3,000 (in its TLB), so each pass looks most of them up again. In pages of 2 MB they are about 30.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import time
from collections.abc import Iterable

log = logging.getLogger(__name__)

# The name in Linux's mman-common.h. Linux has it since 6.1, under every setting of huge pages.
_MADV_COLLAPSE = 25
PAGE_BYTES = 2 * 2**20
# A page takes 1 ms, and more than a second where other work keeps all processors busy.
_MOST_SECONDS = 1.0


def move_to_huge_pages(areas: Iterable[tuple[int, int]]) -> int:
    """Move the memory of `areas`, each an address and a number of bytes, into huge pages; the addresses stay.

    Returns the number of pages that are huge now. Others stay as they were, where the system has no such pages, has
    none left, takes more than a second, or the page reaches beyond the process's memory. The log then says why.
    """
    if sys.platform != "linux":
        return 0
    began = time.perf_counter()
    pages = {
        page for address, size in areas for page in range(address // PAGE_BYTES, -(-(address + size) // PAGE_BYTES))
    }
    errors: list[int] = []
    for page in sorted(pages):
        if time.perf_counter() - began > _MOST_SECONDS:
            break
        errors.append(_collapse(page))
    huge, took_ms = errors.count(0), 1000 * (time.perf_counter() - began)
    refused = sorted({error for error in errors if error})
    why = f"; others are refused: {', '.join(map(os.strerror, refused))}" if refused else ""
    why += f"; {len(pages) - len(errors)} are left, since it takes too long" if len(errors) < len(pages) else ""
    log.info("%d of %d pages with weights are huge now (%.0f ms)%s", huge, len(pages), took_ms, why)
    return huge


def _collapse(page: int) -> int:
    """Make one page huge. Returns 0, or the system's number of the error."""
    libc = ctypes.CDLL(None, use_errno=True)
    address, size = ctypes.c_void_p(page * PAGE_BYTES), ctypes.c_size_t(PAGE_BYTES)
    return ctypes.get_errno() if libc.madvise(address, size, _MADV_COLLAPSE) else 0
