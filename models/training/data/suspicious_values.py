"""Columns and values of a table that are probably no readings: counters, and numbers that stand for none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.counted import counted
from models.sensors.model import Doubles
from models.training.errors import TrainingDataError, quote

# Loggers and buses write these where they have no reading: nines, and the ends of 16 and 32 bits.
_NINES = (-9999.0, -999.0, -99.0, -999.9, -9999.9, -999.99, 9999.0, 99999.0, 999999.0)
_BITS = (-32768.0, 32767.0, 65535.0, -2147483648.0, 2147483647.0, 4294967295.0)
_SENTINELS = frozenset((*_NINES, *_BITS))
# A sentinel is this many times the range of the other values away from them.
_FAR = 3.0
# Fewer rows count up by chance.
_LEAST_ROWS = 64
_GROWING = 0.9
_FEW = 16


def is_empty(column: pa.ChunkedArray) -> bool:
    """Whether no cell of a column has anything in it."""
    if column.null_count == len(column):
        return True
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    if len(column) > _FEW and not is_empty(column.slice(0, _FEW)):  # without a look at all cells
        return False
    texts = pc.cast(column, pa.string())
    return bool(pc.all(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)).as_py())


def never_falls(values: Doubles) -> bool:
    """Whether no value [n] is less than the one before it, or missing."""
    return bool((np.diff(values) >= 0).all())


def is_counter(values: Doubles | None) -> bool:
    """Whether values [n] never fall and mostly rise: a clock, a row number, a meter."""
    if values is None or len(values) < _LEAST_ROWS or not never_falls(values):
        return False
    return bool((np.diff(values) > 0).mean() >= _GROWING)


def require_no_sentinels(columns: tuple[str, ...], readings: Doubles, lines: NDArray[np.int64], param: str) -> None:
    """Refuse numbers that probably stand for no reading, until the job says what they are."""
    found = []
    for name, values in zip(columns, readings.T, strict=True):
        for sentinel in _find_sentinels(values):
            rows = np.flatnonzero(values == sentinel)
            found.append((name, sentinel, len(rows), int(lines[rows[0]])))
    if not found:
        return
    listed = "; ".join(
        f"column {quote(name)} has {sentinel:.15g} {counted(count, 'time')}, first on line {line}"
        for name, sentinel, count, line in found[:20]
    )
    values = ", ".join(f'"{sentinel:.15g}"' for sentinel in dict.fromkeys(one[1] for one in found))
    message = (
        f"{param}: {listed}, far from all other values. If they mean that there is no reading, set "
        f"`csv: {{na_values: [{values}]}}`; if they are readings, set `csv: {{na_values: []}}`"
    )
    raise TrainingDataError("sentinel", message, param, line=found[0][3], column=found[0][0])


def _find_sentinels(values: Doubles) -> list[float]:
    """The sentinels among values [n]. One is the least or the largest value, or that without those found before."""
    found, present = list[float](), values[~np.isnan(values)]
    while len(present):
        ends = [end for end in (float(present.min()), float(present.max())) if end in _SENTINELS]
        far = next((end for end in ends if _is_far(end, present[present != end])), None)
        if far is None:
            break
        found.append(far)
        present = present[present != far]
    return found


def _is_far(value: float, others: Doubles) -> bool:
    if len(others) < 2:
        return False
    low, high = float(others.min()), float(others.max())
    return not low - _FAR * (high - low) <= value <= high + _FAR * (high - low)
