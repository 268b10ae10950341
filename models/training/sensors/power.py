"""The power of a detector: the smallest fault of each column that it finds, in the column's own units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.sensors.calibrated_detector import FittedDetector
from models.sensors.model import Doubles

FaultKind = Literal["step", "ramp", "spike"]
# A fault counts as found where nine of ten copies raise an alarm.
FOUND = 0.9
# Sizes in standard deviations of the middle 90 %: a fault beyond the last one would be seen by eye.
SIZES = tuple(0.25 * 2**power for power in range(8))
MAX_COLUMNS = 32
_LEAST_COPIES, _MOST_COPIES = 10, 40
_LEAST_DURATION = 10
# Readings for which an adaptive detector is quiet after an alarm.
_REST_OF_ADAPTIVE = 200
_DEVIATIONS = 3.29


@dataclass(frozen=True, slots=True)
class Power:
    """The smallest fault of a kind in a column that is found, in the column's units; None where not even the largest.

    `largest` is the size of the largest one that was tried, `duration` its readings.
    """

    column: str
    kind: FaultKind
    smallest: float | None
    largest: float
    duration: int


def measure_power(sensor: FittedDetector, run: Doubles, alpha: float) -> list[Power]:
    """Put copies of a fault into quiet stretches of a normal run [n, d], and look for the smallest size that is found.

    Columns that do not vary are left out. Empty where the run has too few quiet stretches to tell.
    """
    duration = 1 if sensor.kind == "records" else max(2 * sensor.window, _LEAST_DURATION)
    starts = _quiet_stretches(sensor, run, duration, alpha)
    if len(starts) < _LEAST_COPIES:
        return []
    low, high = np.quantile(run, [0.05, 0.95], axis=0)
    spread = np.where(high > low, (high - low) / _DEVIATIONS, run.std(axis=0))
    kinds = ("step",) if sensor.kind == "records" else get_args(FaultKind)
    found = []
    for column in np.flatnonzero(spread > 0)[:MAX_COLUMNS].tolist():
        for kind in kinds:
            shape = _shape(kind, duration)

            def share(size: float, column: int = column, shape: Doubles = shape) -> float:
                return _share_found(sensor, run, column, starts, size * shape, alpha)

            unit = float(spread[column])
            index = _first_index([size * unit for size in SIZES], share)
            smallest = None if index is None else SIZES[index] * unit
            found.append(Power(sensor.columns[column], kind, smallest, SIZES[-1] * unit, duration))
    return found


def _quiet_stretches(sensor: FittedDetector, run: Doubles, duration: int, alpha: float) -> NDArray[np.int64]:
    """The first rows of stretches without an alarm, so far apart that faults in them do not meet in a window."""
    apart = duration + (_REST_OF_ADAPTIVE if sensor.learns else sensor.window)
    first = sensor.window - 1
    count = max((len(run) - first - duration) // apart, 0)
    starts = first + apart * np.arange(count)
    alarms = sensor.score(run).p_values <= alpha
    quiet = [start for start in starts.tolist() if not alarms[start : start + duration].any()]
    chosen = np.linspace(0, len(quiet) - 1, min(len(quiet), _MOST_COPIES)).round().astype(np.int64)
    return np.array(quiet, dtype=np.int64)[chosen]


def _share_found(
    sensor: FittedDetector, run: Doubles, column: int, starts: NDArray[np.int64], shape: Doubles, alpha: float
) -> float:
    """The share of copies of a fault [duration], up and down in turn, that raise an alarm."""
    faulty, duration = run.copy(), len(shape)
    for number, start in enumerate(starts.tolist()):
        faulty[start : start + duration, column] += shape if number % 2 == 0 else -shape
    alarms = sensor.score(faulty).p_values <= alpha
    return float(np.mean([alarms[start : start + duration].any() for start in starts.tolist()]))


def _shape(kind: FaultKind, duration: int) -> Doubles:
    """A fault of size 1, [duration]."""
    if kind == "ramp":
        return np.arange(1, duration + 1) / duration
    return np.ones(duration) if kind == "step" else np.eye(1, duration, duration // 2)[0]


def _first_index(sizes: list[float], share: Callable[[float], float]) -> int | None:
    """The index of the smallest size that is found, by bisection; larger faults are found at least as often."""
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if share(sizes[middle]) >= FOUND:
            high = middle
        else:
            low = middle + 1
    return low if low < len(sizes) else None
