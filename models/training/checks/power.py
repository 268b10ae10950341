"""Outcome check of a detector's power: would it see a fault?"""

from __future__ import annotations

from collections.abc import Sequence

from models.counted import counted
from models.training.checks.wording import name_first, warn_if
from models.training.report import Finding
from models.training.sensors.power import FOUND, Power


def check_power(found: Sequence[Power], alpha: float, period_s: float | None) -> Finding:
    """Say which fault of each column is found; `period_s` is the time between readings, where known."""
    steps = [power for power in found if power.kind == "step"]
    if not steps:
        message = (
            "The held-out normal rows have too few quiet stretches to tell which faults it would find; a longer run "
            "would tell."
        )
        return Finding.of("outcome", "power", "skipped", None, FOUND, message)
    seen = [power for power in steps if power.smallest is not None]
    share = len(seen) / len(steps)
    message = (
        f"Found {FOUND:.0%} of the time at alpha {alpha}, {_length(steps[0].duration, period_s)}: "
        + (f"a step of {'; of '.join(_size(power) for power in seen)}" if seen else "no step in any column")
        + "."
    )
    blind = [repr(power.column) for power in steps if power.smallest is None]
    if blind:
        message += f" Not found, however large: a step in {name_first(blind)}."
    spikes = [power for power in found if power.kind == "spike" and power.smallest is not None]
    if spikes:
        message += f" A single reading is found when it is off by {'; by '.join(_size(power) for power in spikes)}."
    remedy = "Choose another detector, leave out columns that wander, or train on more normal rows."
    return Finding.of("outcome", "power", warn_if(bool(blind)), share, 1.0, message, remedy)


def power_share(found: Sequence[Power]) -> float | None:
    """The share of columns in which some fault is found; None where nothing was measured."""
    columns = {power.column for power in found}
    seen = {power.column for power in found if power.smallest is not None}
    return len(seen) / len(columns) if columns else None


def _size(power: Power) -> str:
    return f"{power.smallest:.3g} in {power.column!r}"


def _length(readings: int, period_s: float | None) -> str:
    if readings == 1:
        return "in one row"
    if period_s is None:
        return f"for {counted(readings, 'reading')}"
    seconds = readings * period_s
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"for {seconds / length:.3g} {unit}"
    return f"for {seconds:.3g} s"
