"""Tables of readings: the cells of a file as readings, times, groups and labels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.sensors.base import LARGEST
from models.sensors.timestamps import EXPECTED, require_in_calendar
from models.training.csv_options import CsvOptions
from models.training.data.clock import find_clock, join
from models.training.data.dates import DateColumn, DateError, read_dates
from models.training.data.dialect import plain
from models.training.data.file_format import find_format
from models.training.data.file_limits import MAX_ROWS
from models.training.data.file_reader import FileColumns, FileReader
from models.training.data.header import require_header
from models.training.data.numbers import MISSING, NumberFormat, cast_plain, find_number_format
from models.training.data.suspects import is_counter, is_empty, never_falls, require_no_sentinels
from models.training.errors import TrainingDataError, data_error, quote

Doubles = NDArray[np.float64]
MOST_COLUMNS = 512
_NORMAL = ("0", "0.0", "false", "no", "normal", "ok", *MISSING)
_ANOMALOUS = ("1", "1.0", "true", "yes", "anomaly", "anomalous", "fault")
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_NUMBER = "a number"
_FIRST_ROWS = 256
_LONGEST_NUMBER = 1000  # bytes, with spaces around it
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """The role of each column; without `columns`, all without a role are readings. `csv` says how a CSV is written."""

    columns: tuple[str, ...] = ()
    timestamp: str | None = None
    group: str | None = None
    label: str | None = None
    csv: CsvOptions = field(default_factory=CsvOptions)

    @property
    def others(self) -> tuple[str, ...]:
        """The columns that are not readings."""
        return tuple(name for name in (self.timestamp, self.group, self.label) if name is not None)


@dataclass(frozen=True, slots=True)
class Table:
    """Readings float64 [n, d] in the order of the file, NaN where one is missing.

    `lines` [n] are lines of the file (rows of a Parquet file). `times` [n] (seconds since 1970), `groups` [n] and
    `labels` [n] (True: an anomaly) are None where the file has none. `read_as` says how the file was understood, where
    it is not plain. `zone` is the one in which its times are local; None for UTC.
    """

    columns: tuple[str, ...]
    readings: Doubles
    lines: NDArray[np.int64]
    times: Doubles | None = None
    groups: tuple[str, ...] | None = None
    labels: NDArray[np.bool_] | None = None
    read_as: tuple[str, ...] = ()
    zone: str | None = None

    def __len__(self) -> int:
        return len(self.readings)


def read_table(path: Path, roles: ColumnRoles, *, param: str = "training_file", max_rows: int = MAX_ROWS) -> Table:
    """Read a CSV, Parquet, XLSX or JSONL file.

    Raises TrainingDataError for the first cell, line or column that cannot be used; it names the other columns' first
    faults, too.
    """
    parser = _TableParser(_read_columns(path, roles.csv, param, max_rows), roles, param)
    try:
        return parser.parse()
    except TrainingDataError as first:
        first.add([fault.message for fault in parser.faults() if fault.message != first.message])
        raise


def find_faults(path: Path, roles: ColumnRoles) -> list[TrainingDataError]:
    """The first fault of each column; none where all can be read. Raises TrainingDataError for the file as a whole."""
    param = "training_file"
    return list(_TableParser(_read_columns(path, roles.csv, param), roles, param).faults())


def _read_columns(path: Path, csv: CsvOptions, param: str, max_rows: int = MAX_ROWS) -> FileColumns:
    kind = find_format(path, None, param, utf_16=True)
    if kind != "csv":
        return FileReader(path, kind, param, max_rows).columns()
    with plain(path, csv, param) as file:
        reader = FileReader(file.path, kind, param, max_rows, delimiter=file.delimiter, original=file.original)
        return replace(reader.columns(), read_as=file.read_as)


@dataclass(slots=True)
class _TableParser:
    file: FileColumns
    roles: ColumnRoles
    param: str
    numbers: NumberFormat = field(default_factory=NumberFormat)

    def parse(self) -> Table:
        roles = self.roles
        self._require_header()
        columns = roles.columns or self._without_role()
        for name in (*columns, *roles.others):
            self._require_column(name)
        if not 1 <= len(columns) <= MOST_COLUMNS:
            raise data_error(self.param, "wrong_columns", f"1 to {MOST_COLUMNS} columns of readings", str(len(columns)))
        self.numbers = self._find_numbers(columns)
        told = [*self.file.read_as, *self.numbers.read_as]
        columns, left_out = (columns, []) if roles.columns else self._without_counters(columns)
        readings = self._matrix(columns)
        if roles.csv.na_values != () and not self.numbers.missing_numbers:
            require_no_sentinels(columns, readings, self.file.lines, self.param)
        dates = None if roles.timestamp is None else self._times(roles.timestamp)
        return Table(
            columns,
            readings,
            self.file.lines,
            None if dates is None else np.array(dates.seconds, dtype=np.float64),
            None if roles.group is None else self._groups(roles.group),
            None if roles.label is None else self._labels(roles.label),
            (*told, *([] if dates is None else dates.read_as), *left_out),
            roles.csv.timezone,
        )

    def _require_header(self) -> None:
        """Refuse a row in place of names, unless the job itself names the columns."""
        table = self.file.table
        if not self.roles.columns and all(map(_is_text, table.columns)):
            require_header(table, self.param)

    def _without_role(self) -> tuple[str, ...]:
        """The columns without a role; not one without a name and cells, as a separator at the end makes it."""
        table, others = self.file.table, (*self.roles.others, self._clock())
        return tuple(
            name for name in table.column_names if name not in others and (name or not is_empty(table.column("")))
        )

    def _clock(self) -> str | None:
        """The column with the time of day, where that of time has days alone."""
        table, dates = self.file.table, self.roles.timestamp
        if dates is None or dates not in table.column_names:
            return None
        return find_clock(table, dates, [name for name in table.column_names if name not in self.roles.others])

    def _find_numbers(self, columns: tuple[str, ...]) -> NumberFormat:
        known = [self.file.table.column(name) for name in columns if name in self.file.table.column_names]
        return find_number_format([column for column in known if _is_text(column)], self.roles.csv, self.param)

    def _without_counters(self, columns: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
        """The columns that are no counters, and what to tell of those that are."""
        counters = [name for name in columns if self._may_count(name) and is_counter(self._numbers_or_none(name))]
        if len(counters) == len(columns):
            return columns, []
        told = [f"left out {quote(name)}, which only counts up" for name in counters]
        return tuple(name for name in columns if name not in counters), told

    def _may_count(self, name: str) -> bool:
        """Whether the first cells never fall, where they are numbers: few columns are then read twice."""
        first = self.file.table.column(name).slice(0, _FIRST_ROWS)
        values = cast_plain(first) if _is_text(first) and self.numbers.is_plain else None
        return values is None or never_falls(values.to_numpy())

    def _numbers_or_none(self, name: str) -> Doubles | None:
        try:
            return self._readings(name)
        except TrainingDataError:
            return None  # named with its line where the readings are read

    def faults(self) -> Iterator[TrainingDataError]:
        """The first fault of each column."""
        roles = self.roles
        missing = [fault for name in (*roles.columns, *roles.others) if (fault := self._missing_column(name))]
        if missing:  # without them, other columns would be taken for what they are not
            yield from missing
            return
        names = roles.columns or self._without_role()
        try:
            self._require_header()
            self.numbers = self._find_numbers(names)
        except TrainingDataError as error:
            yield error
        others = ((roles.timestamp, self._times), (roles.group, self._groups), (roles.label, self._labels))
        readers: list[tuple[str | None, Callable[[str], object]]] = [
            *((name, self._readings) for name in names),
            *others,
        ]
        for name, read in readers:
            if name is not None:
                try:
                    read(name)
                except TrainingDataError as error:
                    yield error

    def _require_column(self, name: str) -> None:
        if fault := self._missing_column(name):
            raise fault

    def _missing_column(self, name: str) -> TrainingDataError | None:
        if name in self.file.table.column_names:
            return None
        known = ", ".join(map(quote, self.file.table.column_names[:20]))
        message = f"{self.param}: expected a column {quote(name)}, got {known}"
        return TrainingDataError("missing_column", message, self.param, column=name)

    def _matrix(self, columns: tuple[str, ...]) -> Doubles:
        """The columns of readings, float64 [n, d], filled one by one: two copies would be twice the memory."""
        readings = np.empty((len(self.file.lines), len(columns)))
        for index, name in enumerate(columns):
            readings[:, index] = self._readings(name)
        return readings

    def _readings(self, name: str) -> Doubles:
        """A column as float64 [n], NaN where a cell is empty."""
        column = self.file.table.column(name)
        numbers = cast_plain(column) if _is_text(column) and self.numbers.is_plain else None
        if numbers is None:
            numbers = self._cast(name, column)
        values = np.array(pc.fill_null(numbers, math.nan), dtype=np.float64)
        if missing := self.numbers.missing_numbers:
            values = np.where(np.isin(values, missing), math.nan, values)
        return self._require_finite(name, values)

    def _cast(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if _is_text(column):
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

    def _times(self, name: str) -> DateColumn:
        """A column as seconds since 1970; without a zone it is UTC."""
        column = self.file.table.column(name)
        if pa.types.is_date(column.type):
            column = pc.cast(column, pa.timestamp("s"), safe=False)
        if not pa.types.is_timestamp(column.type):
            texts, told = self._cells_as_texts(column), list[str]()
            if (clock := self._clock()) is not None:
                texts = join(texts, self._cells_as_texts(self.file.table.column(clock)))
                told = [f"the time of day from {quote(clock)}"]
            try:
                found = read_dates(texts, self.roles.csv, self.param)
                return replace(found, read_as=[*found.read_as, *told])
            except DateError as error:
                got = f"{repr(texts[error.row])[:60]}; `date_format` in `csv` can name another form"
                raise self._error("wrong_type", error.row, name, EXPECTED, got) from None
        # Counted in the file's own unit: a cast to another may overflow or lose digits.
        parse = partial(_count_to_seconds, per_second=_UNITS[column.type.unit])
        counts = pc.cast(column, pa.int64()).to_pylist()
        return DateColumn(self._parse_each(name, counts, parse, EXPECTED), [])

    @staticmethod
    def _cells_as_texts(column: pa.ChunkedArray) -> list[str]:
        return ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]

    def _groups(self, name: str) -> tuple[str, ...]:
        return tuple(map(str, self._parse_cells(name, _require_text, "a group's name")))

    def _labels(self, name: str) -> NDArray[np.bool_]:
        """A column as bool [n], True for anomalies."""
        expected = "0 or 1 (or normal or anomaly, false or true)"
        return np.array(self._parse_cells(name, _parse_label, expected), dtype=np.bool_)

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


def _is_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _number_hint(got: str, column: Sequence[object]) -> str:
    """What to do about a cell that is no number, by the first cells of its column."""
    text = got.strip("'\"")
    if text.replace(",", "", 1).replace(".", "").lstrip("-+").isdigit():
        return " (write numbers with a decimal point, without separators)"
    if any(map(_is_number, column[:_FIRST_ROWS])):
        missing = json.dumps([text], ensure_ascii=False)
        return f" (if it means that there is no reading, add it to `na_values` in `csv`: {missing})"
    roles = "those with times, groups or labels in `timestamp`, `group` and `label`"
    return f" (name the columns to use in `columns`, and {roles})"


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(_parse_number(value))
    except ValueError:
        return False


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
