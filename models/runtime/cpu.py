"""The cores that this process may use, and their division among several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import chain, groupby, pairwise
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")

# The core of a logical processor: its package and its number there. Only comparisons are meaningful.
CoreOf = Callable[[int], tuple[int, int]]


def usable_processors() -> list[int]:
    """The logical processors that this process may run on, sorted."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def count_cores() -> int:
    """The processors that this process can use: at least one, at most its container's quota."""
    allowed = quota()
    return len(usable_processors()) if allowed is None else max(min(len(usable_processors()), int(allowed)), 1)


def quota(cgroup: Path = _CGROUP) -> float | None:
    """The processor time that the control group allows, in processors; None without a limit.

    Linux stops a process with more threads than that for the rest of every tenth of a second.
    """
    try:
        if (limit := cgroup / "cpu.max").is_file():
            allowed, period = limit.read_text().split()
        else:  # the first version of control groups
            allowed, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(allowed) / int(period) if int(allowed) > 0 else None
    except (OSError, ValueError):  # "max" is no number
        return None


def core_of(processor: int) -> tuple[int, int]:
    """The core of a logical processor, by Linux's topology; elsewhere each has its own."""
    topology = _TOPOLOGY / f"cpu{processor}" / "topology"
    try:
        return int((topology / "physical_package_id").read_text()), int((topology / "core_id").read_text())
    except (OSError, ValueError):
        return 0, processor


def divide(processors: Iterable[int], parts: int, core_of: CoreOf = core_of) -> list[list[int]] | None:
    """Logical processors for each of `parts` processes.

    None when there are fewer cores than processes.

    Each process gets whole, neighbouring cores, because processes that share a core slow each other down.
    """
    cores = [list(threads) for _, threads in groupby(sorted(processors, key=lambda one: (core_of(one), one)), core_of)]
    if len(cores) < parts:
        return None
    ends = [len(cores) * part // parts for part in range(parts + 1)]
    return [sorted(chain.from_iterable(cores[start:end])) for start, end in pairwise(ends)]


def pin_to(processors: Iterable[int]) -> None:
    """Pin this process to processors, where the system can. PyTorch then uses as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors)
