"""A clock for limits of tests that share a machine with others."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path


def unloaded_s() -> float:
    """Seconds, without those in which ready threads had no processor (Linux alone)."""
    return time.monotonic() - sum(map(_waited_s, Path("/proc/self/task").glob("*/schedstat")))


def _waited_s(schedstat: Path) -> float:
    with suppress(OSError):  # the thread has ended
        return int(schedstat.read_text().split()[1]) / 1e9
    return 0.0
