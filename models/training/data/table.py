"""Tables of readings: the columns of a file by their roles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.sensors.model import Doubles
from models.training.csv_options import CsvOptions
from models.training.data.column_parser import ColumnParser, is_text
from models.training.data.extra_rows import leave_out_extra_rows
from models.training.data.file_format import find_format
from models.training.data.file_limits import MAX_ROWS
from models.training.data.file_reader import FileColumns, FileReader
from models.training.data.header import require_header
from models.training.data.numbers import NumberFormat, cast_plain, find_number_format
from models.training.data.plain_file import open_plain
from models.training.data.quality_columns import Quality, describe_left_out, find_quality
from models.training.data.suspicious_values import is_counter, is_empty, never_falls, require_no_sentinels
from models.training.data.table_faults import (
    find_backwards,
    find_mostly_missing,
    join_faults,
    order_by_group,
    raise_all,
)
from models.training.data.time_column import find_clock
from models.training.errors import TrainingDataError, data_error, quote
from models.training.hyperparameters import ForecastHyperparameters, SensorAnomalyHyperparameters

MOST_COLUMNS = 512
_FIRST_ROWS = 256
# The reading of a file ends after 100 rows that cannot be read.
_MOST_BROKEN = 100
# What pandas calls a first column without a name: the index of a frame that it wrote.
_INDEX = "Unnamed: 0"
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """The role of each column; without `columns`, all without a role are readings. `csv` says how a CSV is written."""

    columns: tuple[str, ...] = ()
    timestamp: str | None = None
    group: str | None = None
    label: str | None = None
    csv: CsvOptions = field(default_factory=CsvOptions)

    @classmethod
    def of(cls, settings: SensorAnomalyHyperparameters | ForecastHyperparameters) -> ColumnRoles:
        """The roles that a job gives to the columns of its files."""
        return cls(settings.columns, settings.timestamp, settings.group, settings.label, settings.csv)

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
    parser = _TableParser.open(path, roles, param, max_rows)
    table = parser.parse()
    if table is None:
        raise join_faults(parser.faults)
    return table


def find_faults(path: Path, roles: ColumnRoles) -> list[TrainingDataError]:
    """The first fault of each column; none where all can be read. Raises TrainingDataError for the file as a whole."""
    parser = _TableParser.open(path, roles, "training_file")
    parser.parse()
    return parser.faults


def _read_columns(
    path: Path, roles: ColumnRoles, param: str, broken: list[TrainingDataError], max_rows: int
) -> FileColumns:
    """The columns of the rows that can be read; the errors of the others go to `broken`."""
    kind = find_format(path, None, param, utf_16=True)

    def keep(fault: TrainingDataError) -> None:
        broken.append(fault)
        if len(broken) == _MOST_BROKEN:
            raise_all(broken)

    reader = FileReader(path, kind, param, max_rows, on_fault=keep)
    try:
        if kind != "csv":
            return reader.columns()
        with open_plain(path, roles.csv, (*roles.columns, *roles.others), param) as file:
            reader = replace(reader, path=file.path, delimiter=file.delimiter, original=file.original)
            return replace(reader.columns(), read_as=file.read_as)
    except TrainingDataError as error:
        if error.code == "no_rows":
            raise_all(broken[:1])
        raise


def _with_bare_names(file: FileColumns, roles: ColumnRoles) -> FileColumns:
    """The file without spaces around names, but those that a role is given with; as it is where two become one."""
    given = {*roles.columns, *roles.others}
    names = [name if name in given else name.strip() for name in file.table.column_names]
    return replace(file, table=file.table.rename_columns(names)) if len(set(names)) == len(names) else file


def _with_index(roles: ColumnRoles, columns: Sequence[str]) -> ColumnRoles:
    """The roles, in which the first column may have the name that pandas gives it where it has none."""
    if not columns or columns[0] or _INDEX in columns:
        return roles
    named = {role: "" for role in ("timestamp", "group", "label") if getattr(roles, role) == _INDEX}
    return replace(roles, **named)  # type: ignore[arg-type]  # they are texts


@dataclass(slots=True)
class _TableParser:
    """`faults` are those of rows that the file lacks; `parse` adds the first one of each column, and of the table."""

    file: FileColumns
    roles: ColumnRoles
    param: str
    faults: list[TrainingDataError]
    cells: ColumnParser = field(init=False)
    clock: str | None = field(init=False)
    # Of a column of readings, the column that says how good they are.
    quality: dict[str, Quality] = field(init=False)
    empty: list[str] = field(init=False)

    @classmethod
    def open(cls, path: Path, roles: ColumnRoles, param: str, max_rows: int = MAX_ROWS) -> _TableParser:
        """Read the cells of a file. Raises TrainingDataError for the file as a whole."""
        broken = list[TrainingDataError]()
        return cls(_read_columns(path, roles, param, broken, max_rows), roles, param, broken)

    def __post_init__(self) -> None:
        self.file = _with_bare_names(self.file, self.roles)
        self.roles = _with_index(self.roles, self.file.table.column_names)
        self.file = leave_out_extra_rows(self.file, self.roles.timestamp)
        table, roles = self.file.table, self.roles
        self.cells = ColumnParser(self.file, roles.csv, self.param)
        self.clock = find_clock(table, roles.timestamp, roles.others)
        self.quality = find_quality(table, (*roles.others, self.clock), roles.columns)
        self.empty = [name for name in table.column_names if is_empty(table.column(name))]

    def parse(self) -> Table | None:
        """The table; None where there are faults."""
        roles, columns = self.roles, self._find_columns()
        if not columns:
            return None
        with self._collecting():
            self.cells.numbers = self._find_numbers(columns)
        columns, left_out = (columns, []) if roles.columns else self._without_counters(columns)
        readings = self._matrix(columns)
        left_out += self._without_bad(columns, readings)
        with self._collecting():
            self._require_no_sentinels(columns, readings)
        dates = self._read(partial(self.cells.times, clock=self.clock), roles.timestamp)
        times = None if dates is None else np.array(dates.seconds, dtype=np.float64)
        groups = self._read(self.cells.groups, roles.group)
        labels = self._read(self.cells.labels, roles.label)
        if self.faults:
            self._find_table_faults(columns, readings, times, groups)
            return None
        told = (*self.file.read_as, *self.cells.numbers.read_as, *([] if dates is None else dates.read_as), *left_out)
        return Table(columns, readings, self.file.lines, times, groups, labels, told, roles.csv.timezone)

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        try:
            yield
        except TrainingDataError as error:
            self.faults.append(error)

    def _read(self, read: Callable[[str], _Read], name: str | None) -> _Read | None:
        """What a column is read as; None for no column, and for one with a fault."""
        with self._collecting():
            return None if name is None else read(name)
        return None

    def _find_columns(self) -> tuple[str, ...]:
        """The columns of readings; none where they, the rows or the names are not what a table has."""
        before = len(self.faults)
        if not len(self.file.lines):
            got = f"none ({'; '.join(self.file.read_as)})"
            self.faults.append(data_error(self.param, "no_rows", "rows of readings", got))
            return ()
        with self._collecting():
            self._require_header()
        columns = self.roles.columns or self._without_role()
        self.faults += filter(None, map(self._missing_column, (*columns, *self.roles.others)))
        if len(self.faults) == before and not 1 <= len(columns) <= MOST_COLUMNS:
            expected = f"1 to {MOST_COLUMNS} columns of readings"
            self.faults.append(data_error(self.param, "wrong_columns", expected, str(len(columns))))
        return columns if len(self.faults) == before else ()

    def _require_header(self) -> None:
        """Refuse a row in place of names, unless the job itself names the columns."""
        table = self.file.table
        if not self.roles.columns and all(map(is_text, table.columns)):
            require_header(table, self.param)

    def _without_role(self) -> tuple[str, ...]:
        """The columns without a role; not those without cells, and not those of quality."""
        qualities = {quality.name for quality in self.quality.values()}
        others = {*self.roles.others, self.clock, *qualities, *self.empty}
        return tuple(name for name in self.file.table.column_names if name not in others)

    def _find_numbers(self, columns: tuple[str, ...]) -> NumberFormat:
        known = [self.file.table.column(name) for name in columns if name in self.file.table.column_names]
        return find_number_format([column for column in known if is_text(column)], self.roles.csv, self.param)

    def _without_counters(self, columns: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
        """The columns that are no counters, and what to tell of those that are."""
        counters = [name for name in columns if self._may_count(name) and is_counter(self._numbers_or_none(name))]
        left_out = [f"left out {quote(name)}, which is empty" for name in self.empty if name]
        if len(counters) == len(columns):
            return columns, left_out
        left_out += [f"left out {quote(name)}, which only counts up" for name in counters]
        return tuple(name for name in columns if name not in counters), left_out

    def _without_bad(self, columns: tuple[str, ...], readings: Doubles) -> list[str]:
        """Take readings out that are not good, and what to tell of them."""
        used = {name: self.quality[name] for name in columns if name in self.quality}
        for name, quality in used.items():
            readings[~quality.good, columns.index(name)] = np.nan
        return [describe_left_out(used.values())] if used else []

    def _require_no_sentinels(self, columns: tuple[str, ...], readings: Doubles) -> None:
        if self.roles.csv.na_values != () and not self.cells.numbers.missing_numbers:
            require_no_sentinels(columns, readings, self.file.lines, self.param)

    def _may_count(self, name: str) -> bool:
        """Whether the first cells never fall, where they are numbers: few columns are then read twice."""
        first = self.file.table.column(name).slice(0, _FIRST_ROWS)
        values = cast_plain(first) if is_text(first) and self.cells.numbers.is_plain else None
        return values is None or never_falls(values.to_numpy())

    def _numbers_or_none(self, name: str) -> Doubles | None:
        try:
            return self.cells.readings(name)
        except TrainingDataError:
            return None  # named with its line where the readings are read

    def _find_table_faults(
        self, columns: tuple[str, ...], readings: Doubles, times: Doubles | None, groups: tuple[str, ...] | None
    ) -> None:
        """Add what is found where segments are made, in a table without other faults."""
        read = [at for at, name in enumerate(columns) if name not in {fault.column for fault in self.faults}]
        self.faults += find_mostly_missing([columns[at] for at in read], readings[:, read], self.param)
        if times is not None and (groups is None) == (self.roles.group is None):
            order, firsts = order_by_group(groups, len(times))
            self.faults += find_backwards(times, order, firsts, self.file.lines, self.param)

    def _missing_column(self, name: str) -> TrainingDataError | None:
        if name in self.file.table.column_names:
            return None
        known = ", ".join(map(quote, self.file.table.column_names[:20]))
        index = f"; the first one, without a name, is {quote(_INDEX)}" if self.file.table.column_names[0] == "" else ""
        message = f"{self.param}: expected a column {quote(name)}, got {known}{index}"
        return TrainingDataError("missing_column", message, self.param, column=name)

    def _matrix(self, columns: tuple[str, ...]) -> Doubles:
        """The columns of readings, float64 [n, d], NaN for one with a fault."""
        # Filled one by one: two copies would be twice the memory.
        readings = np.full((len(self.file.lines), len(columns)), np.nan)
        for index, name in enumerate(columns):
            if (values := self._read(self.cells.readings, name)) is not None:
                readings[:, index] = values
        return readings
