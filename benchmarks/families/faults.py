"""Faults that are put into readings: what a sensor shows when it, or the machine, fails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.families.generators import Doubles, Random

# A fault's size in standard deviations of its column: from hard to easy.
SMALLEST, LARGEST = 0.75, 5.0
_SHORTEST, _LONGEST = 30, 150
_PEAK = 0.7


def _sign(random: Random) -> float:
    return 1.0 if random.random() < 0.5 else -1.0


def _step(random: Random, x: Doubles, rows: slice, size: float) -> Doubles:
    return x[rows] + _sign(random) * size


def _ramp(random: Random, x: Doubles, rows: slice, size: float) -> Doubles:
    slope: Doubles = np.linspace(0, 1.5 * size, rows.stop - rows.start)
    return x[rows] + _sign(random) * slope


def _spike(random: Random, x: Doubles, rows: slice, size: float) -> Doubles:
    return x[rows] + _sign(random) * 2 * size


def _variance(random: Random, x: Doubles, rows: slice, size: float) -> Doubles:
    noisy: Doubles = x[rows] + 0.7 * size * random.standard_normal(rows.stop - rows.start)
    return noisy


def _frequency(random: Random, x: Doubles, rows: slice, size: float) -> Doubles:
    """The readings run faster or slower, on average with the same values."""
    speed = (1 + size / 4) ** _sign(random)
    length = rows.stop - rows.start
    times = (rows.start + speed * np.arange(length)) % (len(x) - 1)
    values: Doubles = np.interp(times, np.arange(len(x)), x)
    return values


def _stuck(random: Random, x: Doubles, rows: slice, size: float) -> Doubles:
    return np.full(rows.stop - rows.start, x[rows.start])


def _unrelated(random: Random, x: Doubles, rows: slice, size: float) -> Doubles:
    """Readings of another time: each is normal, but not beside the other columns."""
    length = rows.stop - rows.start
    start = (rows.start + int(random.integers(length, len(x) - length))) % (len(x) - length)
    return x[start : start + length]


def _delay(random: Random, x: Doubles, rows: slice, size: float) -> Doubles:
    by = int(random.integers(3, 25))
    return x[rows.start - by : rows.stop - by]


def _missing_pulses(random: Random, x: Doubles, rows: slice, size: float) -> Doubles:
    """Peaks are cut off."""
    return np.minimum(x[rows], np.quantile(x, _PEAK))


FAULTS: dict[str, Callable[[Random, Doubles, slice, float], Doubles]] = {
    "step": _step,
    "ramp": _ramp,
    "spike": _spike,
    "variance": _variance,
    "frequency": _frequency,
    "stuck": _stuck,
    "unrelated": _unrelated,
    "delay": _delay,
    "missing pulses": _missing_pulses,
}


def put_faults(
    random: Random, clean: Doubles, count: int, measured: int | None = None
) -> tuple[Doubles, NDArray[np.bool_]]:
    """Readings [n, d] with `count` faults of random kinds, sizes and columns, and their labels [n].

    A fault is in one of the first `measured` columns (of all without it), or in a third of them; each has its own part
    of the readings.
    """
    columns = measured or clean.shape[1]
    readings, labels = clean.copy(), np.zeros(len(clean), np.bool_)
    spread = np.where(clean.std(axis=0) > 0, clean.std(axis=0), 1.0)
    for part in np.array_split(np.arange(len(clean)), count):
        kind = str(random.choice(list(FAULTS)))
        longest = min(_LONGEST, len(part) // 3)
        length = int(random.integers(1, 4)) if kind == "spike" else int(random.integers(_SHORTEST, longest + 1))
        start = int(part[0]) + int(random.integers(longest // 2, len(part) - length))
        rows = slice(start, start + length)
        size = float(np.exp(random.uniform(np.log(SMALLEST), np.log(LARGEST))))
        wide = 1 if random.random() < 0.6 else max(1, columns // 3)
        for column in random.choice(columns, wide, replace=False).tolist():
            scaled = clean[:, column] / spread[column]
            readings[rows, column] = FAULTS[kind](random, scaled, rows, size) * spread[column]
        labels[rows] = True
    return readings, labels
