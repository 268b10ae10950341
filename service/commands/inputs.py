"""The inputs of a command: texts from arguments, files or standard input, and readings from a file."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from service.client.errors import BadInput

# A day or a month first, which the API does not take.
_NOT_ISO = re.compile(r"[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{2}")
STANDARD_INPUT = Path("-")
# Of files of texts; those of readings with others than commas are read as jobs read them.
_DELIMITERS = ",;\t"


def read_texts(arguments: Sequence[str], file: Path | None, column: str = "text") -> list[str]:
    """The arguments, or the texts of a file; of standard input where neither is given. Raises BadInput.

    CSV has a header, and JSONL objects; `column` names their text. Any other file has a text on each line.
    """
    if arguments and file is not None:
        raise BadInput("expected texts or --file, got both")
    texts = list(arguments) or list(_texts_of(file or _standard_input(), column))
    if not texts:
        raise BadInput(f"expected at least one text, got none in {file or 'standard input'}")
    return texts


def _standard_input() -> Path:
    if sys.stdin.isatty():
        raise BadInput("expected texts: as arguments, with --file, or on standard input")
    return STANDARD_INPUT


def _texts_of(path: Path, column: str) -> Iterator[str]:
    for line, record in _records(path, _DELIMITERS):
        if isinstance(record, str):
            yield record
        elif isinstance(text := record.get(column), str):
            yield text
        else:
            raise BadInput(f"{path}, line {line}: expected text in {column!r} (--column), got {list(record)}")


def _records(path: Path, delimiters: str = ",") -> Iterator[tuple[int, str | dict[str, object]]]:
    """Line number and record of each line that is not blank. CSV has the delimiter that its header has most."""
    with _open(path) as lines:
        yield from _parsed(path, lines, delimiters)


def _open(path: Path, errors: str = "strict") -> TextIO:
    if path == STANDARD_INPUT:
        return sys.stdin
    try:
        return path.open(encoding="utf-8-sig", errors=errors, newline="")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error


def read_file(path: Path) -> str:
    """The text of a file, or of standard input. Raises BadInput."""
    with _open(path) as lines:
        try:
            return lines.read()
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from error


def _not_utf8(path: Path, error: UnicodeDecodeError) -> BadInput:
    return BadInput(f"{path}: expected UTF-8 text, got the byte 0x{error.object[error.start]:02x}")


def _parsed(path: Path, lines: Iterable[str], delimiters: str) -> Iterator[tuple[int, str | dict[str, object]]]:
    kind, rest = path.suffix.lower(), iter(lines)
    try:
        if kind == ".csv":
            from models.training.data.csv_dialect import count_separators  # takes 7 ms, which other files do not need

            header = next(rest, "")
            delimiter = max(delimiters, key=lambda mark: count_separators(header, mark))
            reader = csv.DictReader(chain([header], rest), delimiter=delimiter)
            yield from ((reader.line_num, row) for row in reader)
            return
        for number, line in enumerate(rest, start=1):
            if line.strip():
                yield number, _object(path, number, line) if kind == ".jsonl" else line.strip("\r\n")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except csv.Error as error:
        raise BadInput(f"{path}: expected CSV: {error}") from error


def _object(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{path}, line {number}: expected JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}, line {number}: expected an object, got {type(found).__name__}")
    return found


@dataclass(frozen=True, slots=True)
class Readings:
    """Rows of readings by the columns that a model reads, [n, d], their lines, and their times as the API takes them.

    A reading that is missing is None.
    """

    rows: list[list[float | None]]
    lines: list[int]
    times: list[str] | None

    def time_at(self, row: int) -> dict[str, str]:
        """The time of a row by the name "timestamp"; empty without times."""
        return {} if self.times is None else {"timestamp": self.times[row]}


def read_readings(path: Path, columns: Sequence[str], timestamp: str | None) -> Readings:
    """The columns of a CSV or JSONL file; others are ignored. Raises BadInput, which names line and column."""
    is_table = path.suffix.lower() == ".csv" and path.is_file()
    if not (is_table and _has_quality(path)):
        try:
            return _read_plain(path, columns, timestamp)
        except BadInput:
            if not is_table:
                raise
    return _read_as_jobs_do(path, columns, timestamp)


def _has_quality(path: Path) -> bool:
    """Whether a column says how good readings are, by the first lines of a CSV."""
    from models.training.data.quality_columns import is_quality_name  # takes a moment to load

    with _open(path, errors="replace") as lines:
        cells = (cell for line in islice(lines, 50) for cell in re.split(r"[;,\t|]", line))
        return any(is_quality_name(cell.strip('" \r\n')) for cell in cells)


def _read_as_jobs_do(path: Path, columns: Sequence[str], timestamp: str | None) -> Readings:
    """The same of a CSV in any form that a training job reads: other marks, encodings, units, gaps. Times are UTC."""
    from models.training.data.table import ColumnRoles, read_table  # takes a second to load
    from models.training.errors import TrainingDataError

    try:
        table = read_table(path, ColumnRoles(tuple(columns), timestamp), param=str(path))
    except TrainingDataError as error:
        where = "" if error.message.startswith(str(path)) else f"{path}, "
        raise BadInput(f"{where}{error.message}; 'sonde score' takes --csv") from error
    rows = [[None if math.isnan(value) else value for value in row] for row in table.readings.tolist()]
    times = None if table.times is None else [datetime.fromtimestamp(one, UTC).isoformat() for one in table.times]
    return Readings(rows, table.lines.tolist(), times)


def _read_plain(path: Path, columns: Sequence[str], timestamp: str | None) -> Readings:
    rows, lines, times = list[list[float | None]](), list[int](), list[str]()
    for line, record in _records(path):
        if isinstance(record, str):
            raise BadInput(f"{path}: expected a name that ends in .csv or .jsonl")
        rows.append([read_number(path, line, name, _cell(path, line, name, record)) for name in columns])
        lines.append(line)
        if timestamp is not None:
            times.append(_time(path, line, timestamp, record))
    if not rows:
        raise BadInput(f"{path}: expected rows of readings, got none")
    return Readings(rows, lines, times if timestamp is not None else None)


def _cell(path: Path, line: int, name: str, record: dict[str, object]) -> object:
    if name not in record:
        raise BadInput(f"{path}, line {line}: expected a column {name!r}, got {', '.join(map(str, record))}")
    return record[name]


def _time(path: Path, line: int, name: str, record: dict[str, object]) -> str:
    time = str(_cell(path, line, name, record))
    if _NOT_ISO.match(time):
        raise BadInput(f"{path}, line {line}, column {name!r}: expected ISO 8601, got {time[:60]!r}")
    return time


def read_number(path: Path, line: int, column: str | int, value: object) -> float:
    """The number in a cell. Raises BadInput, which names line and column."""
    try:
        number = float(value)  # type: ignore[arg-type]  # the error says what came
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"{path}, line {line}, column {column!r}: expected a finite number, got {str(value)[:60]!r}")
    return number
