"""The memory that this process may use, and the errors where it ends."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
# On Linux and macOS, and on Windows.
_ALLOCATOR_SAYS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")


def usable_bytes(cgroup: Path = _CGROUP) -> int:
    """The machine's memory, or less where the control group has a limit."""
    total = int(psutil.virtual_memory().total)
    allowed = _read_limit(cgroup / "memory.max") or _read_limit(cgroup / "memory" / "memory.limit_in_bytes")
    return min(allowed or total, total)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the machine has no memory left; PyTorch's CPU allocator has no class of its own."""
    by_allocator = isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATOR_SAYS)
    return by_allocator or isinstance(error, MemoryError)


def _read_limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no number
        return None
