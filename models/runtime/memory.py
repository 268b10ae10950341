"""The memory that this process may use."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def usable_bytes(cgroup: Path = _CGROUP) -> int:
    """The machine's memory, or less where the control group has a limit."""
    total = int(psutil.virtual_memory().total)
    allowed = _read_limit(cgroup / "memory.max") or _read_limit(cgroup / "memory" / "memory.limit_in_bytes")
    return min(allowed or total, total)


def _read_limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no number
        return None
