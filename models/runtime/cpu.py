"""The processor's cores that this process may use, and how several processes divide them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import chain, groupby, pairwise
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")

# A core by the package that it is in and its number there; what it is called may only be compared.
CoreOf = Callable[[int], tuple[int, int]]


def usable_processors() -> list[int]:
    """The logical processors that this process may run on, sorted. They may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def count_cores() -> int:
    """How many processors' time this process has: one at least, and no more than its container's quota gives."""
    allowed = quota()
    return len(usable_processors()) if allowed is None else max(min(len(usable_processors()), int(allowed)), 1)


def quota(cgroup: Path = _CGROUP) -> float | None:
    """How many processors' time this process's container may use, as its control group says; None where nothing is
    said.

    A process that computes with more threads than that is stopped for the rest of every tenth of a second.
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
    """The core that a logical processor is a thread of, as Linux tells it; elsewhere each is a core of its own."""
    about = _TOPOLOGY / f"cpu{processor}" / "topology"
    try:
        return int((about / "physical_package_id").read_text()), int((about / "core_id").read_text())
    except (OSError, ValueError):
        return 0, processor


def divide(processors: Iterable[int], parts: int, core_of: CoreOf = core_of) -> list[list[int]] | None:
    """Logical processors for each of `parts` processes: whole cores, neighbours together. None when there are fewer
    cores.

    Two threads of one core never go to two processes, which would compute in each other's way.
    """
    cores = [list(threads) for _, threads in groupby(sorted(processors, key=lambda one: (core_of(one), one)), core_of)]
    if len(cores) < parts:
        return None
    ends = [len(cores) * part // parts for part in range(parts + 1)]
    return [sorted(chain.from_iterable(cores[start:end])) for start, end in pairwise(ends)]


def pin_to(processors: Iterable[int]) -> None:
    """Have this process run on these alone, where the system can do that. PyTorch then takes as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors)
