"""Missing readings, filled in the same way in training and in service."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.sensors.model import Readings

Doubles = NDArray[np.float64]
# Above this share of a column (in training) or of all values of a call (in service), filled values would decide.
MAX_MISSING = 0.5


def carry_forward(readings: Readings, starts: NDArray[np.int64], default: Doubles) -> Readings:
    """Fill each NaN of readings [n, d] with the last value of its column since the segment's start, else `default` [d].

    `starts` [k] are the first rows of the segments; the first is 0.
    """
    missing = np.isnan(readings)
    if not missing.any():
        return readings
    begun = readings.copy()
    begun[starts] = np.where(missing[starts], default, readings[starts])
    # One column after the other: the value before a gap is of its own column, since each begins with one.
    values = begun.T.ravel()
    is_gap = np.isnan(values)
    known, gaps = np.flatnonzero(~is_gap), np.flatnonzero(is_gap)
    values[gaps] = values[known[np.searchsorted(known, gaps) - 1]]
    return np.ascontiguousarray(values.reshape(begun.T.shape).T)


def continue_from(before: Doubles, readings: Readings) -> Readings:
    """Fill each NaN of readings [n, d] with the last value of its column, which may be in the row `before` [d]."""
    if not np.isnan(readings).any():
        return readings
    whole = np.concatenate([before[None], readings])
    return carry_forward(whole, np.zeros(1, dtype=np.int64), before)[1:]


def count_missing(readings: Readings, columns: tuple[str, ...]) -> dict[str, int]:
    """The number of missing values of each column that lacks some."""
    counts = np.isnan(readings).sum(axis=0).tolist()
    return {name: count for name, count in zip(columns, counts, strict=True) if count}
