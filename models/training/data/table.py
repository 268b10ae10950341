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
from models.training.data.csv_dialect import plain
from models.training.data.file_format import find_format
from models.training.data.file_limits import MAX_ROWS
from models.training.data.file_reader import FileColumns, FileReader
from models.training.data.header import require_header
from models.training.data.no_readings import leave_out_no_readings
from models.training.data.numbers import NumberFormat, cast_plain, find_number_format
from models.training.data.quality_columns import describe_left_out, find_quality, is_good
from models.training.data.suspicious_values import is_counter, is_empty, never_falls, require_no_sentinels
from models.training.data.table_faults import find_backwards, find_mostly_missing, order_by_group, raise_all
from models.training.data.time_column import find_clock
from models.training.errors import TrainingDataError, data_error, quote
from models.training.hyperparameters import ForecastHyperparameters, SensorAnomalyHyperparameters

MOST_COLUMNS = 512
_FIRST_ROWS = 256
# The reading of a file ends with so many rows that cannot be read.
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
    broken: list[TrainingDataError] = []
    parser = _TableParser(_read_columns(path, roles.csv, param, broken, max_rows), roles, param, broken)
    try:
        return parser.parse()
    except TrainingDataError as first:
        first.add([fault.message for fault in parser.faults() if fault.message != first.message])
        raise


def find_faults(path: Path, roles: ColumnRoles) -> list[TrainingDataError]:
    """The first fault of each column; none where all can be read. Raises TrainingDataError for the file as a whole."""
    param, broken = "training_file", list[TrainingDataError]()
    return list(_TableParser(_read_columns(path, roles.csv, param, broken), roles, param, broken).faults())


def _read_columns(
    path: Path, csv: CsvOptions, param: str, broken: list[TrainingDataError], max_rows: int = MAX_ROWS
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
        with plain(path, csv, param) as file:
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


@contextmanager
def _collecting(faults: list[TrainingDataError]) -> Iterator[None]:
    try:
        yield
    except TrainingDataError as error:
        faults.append(error)


@dataclass(slots=True)
class _TableParser:
    file: FileColumns
    roles: ColumnRoles
    param: str
    broken: Sequence[TrainingDataError] = ()  # of rows that the file lacks
    cells: ColumnParser = field(init=False)
    # The column of quality of a column of readings.
    quality: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.file = _with_bare_names(self.file, self.roles)
        self.roles = _with_index(self.roles, self.file.table.column_names)
        self.file = leave_out_no_readings(self.file, self.roles.timestamp)
        self.cells = ColumnParser(self.file, self.roles.csv, self.param)
        self.quality = find_quality(self.file.table, (*self.roles.others, self._clock()), self.roles.columns)

    def parse(self) -> Table:
        roles = self.roles
        raise_all(self.broken[:1])
        self._require_header()
        columns = roles.columns or self._without_role()
        for name in (*columns, *roles.others):
            self._require_column(name)
        if not 1 <= len(columns) <= MOST_COLUMNS:
            raise data_error(self.param, "wrong_columns", f"1 to {MOST_COLUMNS} columns of readings", str(len(columns)))
        self.cells.numbers = self._find_numbers(columns)
        read_as = [*self.file.read_as, *self.cells.numbers.read_as]
        columns, left_out = (columns, []) if roles.columns else self._without_counters(columns)
        readings = self._matrix(columns)
        left_out += self._without_bad(columns, readings)
        self._require_no_sentinels(columns, readings)
        dates = None if roles.timestamp is None else self.cells.times(roles.timestamp, self._clock())
        return Table(
            columns,
            readings,
            self.file.lines,
            None if dates is None else np.array(dates.seconds, dtype=np.float64),
            None if roles.group is None else self.cells.groups(roles.group),
            None if roles.label is None else self.cells.labels(roles.label),
            (*read_as, *([] if dates is None else dates.read_as), *left_out),
            roles.csv.timezone,
        )

    def _require_header(self) -> None:
        """Refuse a row in place of names, unless the job itself names the columns."""
        table = self.file.table
        if not self.roles.columns and all(map(is_text, table.columns)):
            require_header(table, self.param)

    def _without_role(self) -> tuple[str, ...]:
        """The columns without a role; not those without cells, and not those of quality."""
        others = {*self.roles.others, self._clock(), *self.quality.values(), *self._empty}
        return tuple(name for name in self.file.table.column_names if name not in others)

    @property
    def _empty(self) -> list[str]:
        """The columns without a cell, such as one of comments, or one that a separator at the end makes."""
        table = self.file.table
        return [name for name in table.column_names if is_empty(table.column(name))]

    def _clock(self) -> str | None:
        """The column with the time of day, where that of time has days alone."""
        table, dates = self.file.table, self.roles.timestamp
        if dates is None or dates not in table.column_names:
            return None
        return find_clock(table, dates, [name for name in table.column_names if name not in self.roles.others])

    def _find_numbers(self, columns: tuple[str, ...]) -> NumberFormat:
        known = [self.file.table.column(name) for name in columns if name in self.file.table.column_names]
        return find_number_format([column for column in known if is_text(column)], self.roles.csv, self.param)

    def _without_counters(self, columns: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
        """The columns that are no counters, and what to tell of those that are."""
        counters = [name for name in columns if self._may_count(name) and is_counter(self._numbers_or_none(name))]
        left_out = [f"left out {quote(name)}, which is empty" for name in self._empty if name]
        if len(counters) == len(columns):
            return columns, left_out
        left_out += [f"left out {quote(name)}, which only counts up" for name in counters]
        return tuple(name for name in columns if name not in counters), left_out

    def _without_bad(self, columns: tuple[str, ...], readings: Doubles) -> list[str]:
        """Take readings out that are not good, and what to tell of them."""
        used = {name: self.quality[name] for name in columns if name in self.quality}
        bad = {name: ~is_good(self.file.table.column(quality)) for name, quality in used.items()}
        for name, rows in bad.items():
            readings[rows, columns.index(name)] = np.nan
        return [describe_left_out(used.values(), int(sum(rows.sum() for rows in bad.values())))] if used else []

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

    def faults(self) -> Iterator[TrainingDataError]:
        """The faults of rows that cannot be read, the first one of each column, and then those of the table."""
        roles = self.roles
        yield from self.broken
        missing = [fault for name in (*roles.columns, *roles.others) if (fault := self._missing_column(name))]
        if missing:  # without them, other columns would be taken for what they are not
            yield from missing
            return
        names, found = roles.columns or self._without_role(), list[TrainingDataError]()
        with _collecting(found):
            self._require_header()
            self.cells.numbers = self._find_numbers(names)
        readings = {name: self._read(self.cells.readings, name, found) for name in names}
        dates = self._read(partial(self.cells.times, clock=self._clock()), roles.timestamp, found)
        groups = self._read(self.cells.groups, roles.group, found)
        self._read(self.cells.labels, roles.label, found)
        yield from found
        yield from self._table_faults({name: values for name, values in readings.items() if values is not None})
        if dates is not None and (groups is None) == (roles.group is None):
            order, firsts = order_by_group(groups, len(dates.seconds))
            yield from find_backwards(np.array(dates.seconds), order, firsts, self.file.lines, self.param)

    @staticmethod
    def _read(read: Callable[[str], _Read], name: str | None, found: list[TrainingDataError]) -> _Read | None:
        """What a column is read as; None for no column, and for one with a fault, which is `found`."""
        with _collecting(found):
            return None if name is None else read(name)
        return None

    def _table_faults(self, columns: dict[str, Doubles]) -> Iterator[TrainingDataError]:
        """The faults of columns that can be read: sentinels, and values that are mostly missing."""
        if not self.roles.columns:
            columns = {name: values for name, values in columns.items() if not is_counter(values)}
        if not columns:
            return
        names, readings, found = tuple(columns), np.column_stack(list(columns.values())), list[TrainingDataError]()
        self._without_bad(names, readings)
        with _collecting(found):
            self._require_no_sentinels(names, readings)
        yield from [*found, *find_mostly_missing(names, readings, self.param)]

    def _require_column(self, name: str) -> None:
        if fault := self._missing_column(name):
            raise fault

    def _missing_column(self, name: str) -> TrainingDataError | None:
        if name in self.file.table.column_names:
            return None
        known = ", ".join(map(quote, self.file.table.column_names[:20]))
        index = f"; the first one, without a name, is {quote(_INDEX)}" if self.file.table.column_names[0] == "" else ""
        message = f"{self.param}: expected a column {quote(name)}, got {known}{index}"
        return TrainingDataError("missing_column", message, self.param, column=name)

    def _matrix(self, columns: tuple[str, ...]) -> Doubles:
        """The columns of readings, float64 [n, d], filled one by one: two copies would be twice the memory."""
        readings = np.empty((len(self.file.lines), len(columns)))
        for index, name in enumerate(columns):
            readings[:, index] = self.cells.readings(name)
        return readings
