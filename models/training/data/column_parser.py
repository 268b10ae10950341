"""The cells of a table's column as readings, times, groups or labels."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.sensors.model import LARGEST, Doubles
from models.sensors.timestamps import EXPECTED, require_in_calendar
from models.training.csv_options import CsvOptions
from models.training.data.dates import DateColumn, DateError, read_dates
from models.training.data.file_reader import FileColumns
from models.training.data.numbers import MISSING, NumberFormat, cast_plain
from models.training.data.time_column import join
from models.training.errors import TrainingDataError, data_error, quote, shorten

_NORMAL = ("0", "0.0", "false", "no", "normal", "ok", *MISSING)
_ANOMALOUS = ("1", "1.0", "true", "yes", "anomaly", "anomalous", "fault")
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_NUMBER = "a number"
_DAY = re.compile(r"[0-9]{1,4}([-./])[0-9]{1,2}\1[0-9]{1,4}(?![-./0-9])")
_WITH_UNIT = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?\s*[a-zA-Z%°µΩ][a-zA-Z%°µΩ/²³ ]{0,9}")
_FIRST_CELLS = 256
_MOST_TEXTS = 10
_LONGEST_NUMBER = 1000  # bytes, with spaces around it
_Value = TypeVar("_Value")


@dataclass(slots=True)
class ColumnParser:
    """Reads columns of a file; each method raises TrainingDataError for the first cell that it cannot read."""

    file: FileColumns
    csv: CsvOptions
    param: str
    numbers: NumberFormat = field(default_factory=NumberFormat)

    def readings(self, name: str) -> Doubles:
        """A column as float64 [n], NaN where a cell is empty."""
        column = self.file.table.column(name)
        numbers = cast_plain(column) if is_text(column) and self.numbers.is_plain else None
        if numbers is None:
            numbers = self._cast(name, column)
        values = np.array(pc.fill_null(numbers, math.nan), dtype=np.float64)
        if missing := self.numbers.missing_numbers:
            values = np.where(np.isin(values, missing), math.nan, values)
        return self._require_finite(name, values)

    def times(self, name: str, clock: str | None) -> DateColumn:
        """A column as seconds since 1970, with the time of day in the column `clock`; without a zone it is UTC."""
        column = self.file.table.column(name)
        if pa.types.is_date(column.type):
            column = pc.cast(column, pa.timestamp("s"), safe=False)
        if not pa.types.is_timestamp(column.type):
            texts, how = self._cells_as_texts(column), list[str]()
            if clock is not None:
                texts = join(texts, self._cells_as_texts(self.file.table.column(clock)))
                how = [f"the time of day from {quote(clock)}"]
            try:
                found = read_dates(texts, self.csv, self.param)
                return replace(found, read_as=[*found.read_as, *how])
            except DateError as error:
                got = f"{repr(texts[error.row])[:60]}; `date_format` in `csv` can name another form"
                raise self._error("wrong_type", error.row, name, EXPECTED, got) from None
        # Counted in the file's own unit: a cast to another may overflow or lose digits.
        parse = partial(_count_to_seconds, per_second=_UNITS[column.type.unit])
        counts = pc.cast(column, pa.int64()).to_pylist()
        return DateColumn(self._parse_each(name, counts, parse, EXPECTED), [])

    def groups(self, name: str) -> tuple[str, ...]:
        """A column as names, of which none is empty."""
        return tuple(map(str, self._parse_cells(name, _require_text, "a group's name")))

    def labels(self, name: str) -> NDArray[np.bool_]:
        """A column as bool [n], True for anomalies."""
        expected = "0 or 1 (or normal or anomaly, false or true)"
        return np.array(self._parse_cells(name, _parse_label, expected), dtype=np.bool_)

    def _cast(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if is_text(column):
            self._require_short(name, column)
            column = self.numbers.to_plain(column)
        try:
            return pc.cast(column, pa.float64(), safe=False)
        except pa.ArrowException:
            return pa.array(self._parse_each(name, column.to_pylist(), _parse_number, _NUMBER), pa.float64())

    def _require_short(self, name: str, column: pa.ChunkedArray) -> None:
        """Refuse a text that is too long for a number, before copies of it are made."""
        for row in np.flatnonzero(pc.fill_null(pc.greater(pc.binary_length(column), _LONGEST_NUMBER), False))[:1]:
            start = pc.utf8_slice_codeunits(column.slice(row, 1), 0, 60)[0].as_py()
            raise self._error("wrong_type", int(row), name, _NUMBER, repr(start) + _number_hint(start, []))

    def _require_finite(self, name: str, values: Doubles) -> Doubles:
        infinite, large = np.flatnonzero(np.isinf(values)), np.flatnonzero(np.abs(values) > LARGEST)
        if len(infinite):
            row = int(infinite[0])
            raise self._error("not_finite", row, name, "a finite number", str(values[row]))
        if len(large):
            row = int(large[0])
            got = f"{values[row]} (take another unit, or leave it empty)"
            raise self._error("too_large", row, name, f"a number of at most {LARGEST:g} either way", got)
        return values

    @staticmethod
    def _cells_as_texts(column: pa.ChunkedArray) -> list[str]:
        return ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]

    def _parse_cells(self, name: str, parse: Callable[[object], _Value], expected: str) -> list[_Value]:
        return self._parse_each(name, self.file.table.column(name).to_pylist(), parse, expected)

    def _parse_each(
        self, name: str, values: Sequence[object], parse: Callable[[object], _Value], expected: str
    ) -> list[_Value]:
        parsed = []
        for row, value in enumerate(values):
            try:
                parsed.append(parse(value))
            except (ValueError, TypeError, OverflowError):
                got = repr(value)[:60]
                hint = _number_hint(got, values) if expected == _NUMBER else ""
                raise self._error("wrong_type", row, name, expected, got + hint) from None
        return parsed

    def _error(self, code: str, row: int, name: str, expected: str, got: str) -> TrainingDataError:
        line = int(self.file.lines[row])
        return data_error(self.param, code, expected, got, line=line, column=name, unit=self.file.unit)


def is_text(column: pa.ChunkedArray) -> bool:
    """Whether the cells of a column are texts."""
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _number_hint(got: str, column: Sequence[object]) -> str:
    """What to do about a cell that is no number, by the other cells of its column."""
    text = got.strip("'\"")
    if _DAY.match(text):
        return " (this looks like a column of times: name it in `timestamp`)"
    if text.replace(",", "", 1).replace(".", "").lstrip("-+").isdigit():
        return " (write it with a decimal point and no other marks, or say in `csv` how numbers are written)"
    if _WITH_UNIT.fullmatch(text):
        return " (write numbers without their unit)"
    if any(map(_is_number, column[:_FIRST_CELLS])):
        missing = json.dumps(_texts(column), ensure_ascii=False)
        return f" (if it means that there is no reading, add it to `na_values` in `csv`: {missing})"
    roles = "those with times, groups or labels in `timestamp`, `group` and `label`"
    seen = column[:_FIRST_CELLS]
    long = "; where each row has the value of one sensor, make a column of each sensor first" if _repeats(seen) else ""
    return f" (name the columns to use in `columns`, and {roles}{long})"


def _texts(column: Sequence[object]) -> list[str]:
    """The first few different cells that are no finite numbers."""
    found = dict.fromkeys(shorten(str(cell)) for cell in dict.fromkeys(column) if _is_other(cell))
    return list(found)[:_MOST_TEXTS]


def _repeats(cells: Sequence[object]) -> bool:
    """Whether cells are a few names again and again."""
    return 1 < len(set(cells)) <= len(cells) // 4


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(_parse_number(value))
    except ValueError:
        return False


def _is_other(value: object) -> bool:
    """Whether a cell is neither a finite number nor one that is missing."""
    try:
        return math.isinf(_parse_number(value))
    except ValueError:
        return True


def _parse_number(value: object) -> float:
    return math.nan if value is None else float(str(value))


def _require_text(value: object) -> object:
    if value is None or not str(value).strip():
        raise ValueError("an empty cell")
    return value


def _count_to_seconds(value: object, per_second: float) -> float:
    return require_in_calendar(int(str(value)) / per_second)


def _parse_label(value: object) -> bool:
    text = "" if value is None else str(value).strip().lower()
    if text not in (*_NORMAL, *_ANOMALOUS):
        raise ValueError("neither 0 nor 1")
    return text in _ANOMALOUS
