"""Tables of readings: cells become numbers, times, groups and labels; the first that is none is named by line and
column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.sensors.base import LARGEST
from models.training.data.table_reader import Cells, read_cells
from models.training.data.timestamps import EXPECTED, in_calendar, seconds_of
from models.training.errors import TrainingDataError

MISSING = ("", "na", "n/a", "nan", "null", "none", "-")
NORMAL = ("0", "0.0", "false", "no", "normal", "ok", *MISSING)
STRANGE = ("1", "1.0", "true", "yes", "anomaly", "anomalous", "fault")
MOST_COLUMNS = 512
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_Value = TypeVar("_Value")


def read_table(path: Path, wanted: Wanted, *, param: str = "training_file") -> Table:
    """Read a CSV, Parquet or JSONL file. Raises TrainingDataError for the first cell, line or column that cannot be
    used.
    """
    return _Parser(read_cells(path, param=param), param).table(wanted)


@dataclass(frozen=True, slots=True)
class _Parser:
    cells: Cells
    param: str

    def table(self, wanted: Wanted) -> Table:
        """All parts of the table."""
        columns = wanted.columns or tuple(name for name in self.cells.columns if name not in wanted.named)
        for name in (*columns, *wanted.named):
            self._require(name)
        if not 1 <= len(columns) <= MOST_COLUMNS:
            message = f"{self.param}: expected 1 to {MOST_COLUMNS} columns of numbers, got {len(columns)}"
            raise TrainingDataError("wrong_columns", message, self.param)
        return Table(
            columns,
            np.stack([self._numbers(name) for name in columns], axis=1),
            self.cells.lines,
            None if wanted.timestamp is None else self._times(wanted.timestamp),
            None if wanted.group is None else tuple(self._texts(wanted.group)),
            None if wanted.label is None else self._labels(wanted.label),
        )

    def _require(self, name: str) -> None:
        if name not in self.cells.columns:
            known = ", ".join(repr(known[:60]) for known in list(self.cells.columns)[:20])
            message = f"{self.param}: expected a column {name[:60]!r}, got {known}"
            raise TrainingDataError("missing_column", message, self.param, column=name)

    def _numbers(self, name: str) -> Doubles:
        """A column as float64 [n], NaN where there is nothing."""
        column = self.cells.columns[name]
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return self._finite(name, self._cast(name, column))
        texts = pc.utf8_trim_whitespace(column)
        empty = pc.is_in(pc.utf8_lower(texts), pa.array(MISSING, texts.type))
        return self._finite(name, self._cast(name, pc.if_else(empty, pa.scalar(None, texts.type), texts)))

    def _cast(self, name: str, column: pa.Array) -> pa.Array:
        try:
            return pc.cast(column, pa.float64(), safe=False)
        except pa.ArrowException:
            return pa.array(self._each(name, column.to_pylist(), _number, "a number"), pa.float64())

    def _finite(self, name: str, numbers: pa.Array) -> Doubles:
        values: Doubles = np.array(pc.fill_null(numbers, math.nan), dtype=np.float64)
        infinite, large = np.flatnonzero(np.isinf(values)), np.flatnonzero(np.abs(values) > LARGEST)
        if len(infinite):
            raise self._refused("not_finite", int(infinite[0]), name, "a finite number", str(values[infinite[0]]))
        if len(large):
            expected = f"a number of at most {LARGEST:g} either way"
            raise self._refused(
                "too_large", int(large[0]), name, expected, f"{values[large[0]]} (take another unit, or leave it empty)"
            )
        return values

    def _times(self, name: str) -> Doubles:
        """A column as seconds since 1970, float64 [n]; without a zone it is UTC."""
        column = self.cells.columns[name]
        if pa.types.is_date(column.type):
            column = pc.cast(column, pa.timestamp("s"), safe=False)
        if not pa.types.is_timestamp(column.type):
            return np.array(self._each(name, column.to_pylist(), _seconds, EXPECTED), dtype=np.float64)
        # Counted in the file's own unit: a cast to another may overflow, or have digits to spare.
        unit = _UNITS[column.type.unit]
        counts = pc.cast(column, pa.int64()).to_pylist()
        return np.array(
            self._each(name, counts, lambda count: in_calendar(int(str(count)) / unit), EXPECTED), dtype=np.float64
        )

    def _texts(self, name: str) -> list[str]:
        return [
            str(value) for value in self._each(name, self.cells.columns[name].to_pylist(), _present, "a group's name")
        ]

    def _labels(self, name: str) -> NDArray[np.bool_]:
        """True for anomalies."""
        expected = "0 or 1 (or normal or anomaly, false or true)"
        return np.array(self._each(name, self.cells.columns[name].to_pylist(), _strange, expected), dtype=np.bool_)

    def _each(self, name: str, values: list[object], parse: Callable[[object], _Value], expected: str) -> list[_Value]:
        parsed = []
        for row, value in enumerate(values):
            try:
                parsed.append(parse(value))
            except (ValueError, TypeError, OverflowError):
                raise self._refused("wrong_type", row, name, expected, repr(value)[:60]) from None
        return parsed

    def _refused(self, code: str, row: int, name: str, expected: str, got: str) -> TrainingDataError:
        line = int(self.cells.lines[row])
        message = (
            f"{self.cells.unit} {line}, column {name[:60]!r}: expected {expected}, got {got}{_hint(got, expected)}"
        )
        return TrainingDataError(code, message, self.param, line=line, column=name)


def _hint(got: str, expected: str) -> str:
    bare = got.strip("'\"")
    if expected == "a number" and bare.replace(",", "", 1).replace(".", "").lstrip("-+").isdigit():
        return " (write numbers with a decimal point, without separators)"
    if expected == "a number":
        return (
            " (name the columns to use in `columns`, and those with times, groups or labels in `timestamp`, "
            "`group` and `label`)"
        )
    return ""


def _number(value: object) -> float:
    return math.nan if value is None else float(str(value))


def _present(value: object) -> object:
    if value is None or not str(value).strip():
        raise ValueError
    return value


def _seconds(value: object) -> float:
    return seconds_of(str(_present(value)).strip())


def _strange(value: object) -> bool:
    text = "" if value is None else str(value).strip().lower()
    if text in STRANGE:
        return True
    if text not in NORMAL:
        raise ValueError
    return False


Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which columns of a file are what; no `columns` takes all that have no other part."""

    columns: tuple[str, ...] = ()
    timestamp: str | None = None
    group: str | None = None
    label: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that are no readings."""
        return tuple(name for name in (self.timestamp, self.group, self.label) if name is not None)


@dataclass(frozen=True, slots=True)
class Table:
    """Readings float64 [n, d] in the order of the file, NaN where one is missing.

    `lines` [n] are lines of the file (rows of a Parquet file). `times` [n] (seconds since 1970), `groups` [n] and
    `labels` [n] (True: an anomaly) are None where the file has none.
    """

    columns: tuple[str, ...]
    readings: Doubles
    lines: NDArray[np.int64]
    times: Doubles | None = None
    groups: tuple[str, ...] | None = None
    labels: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.readings)
