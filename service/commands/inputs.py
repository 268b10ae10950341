"""The inputs of a command: texts from arguments, files or standard input, and readings from a file."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from service.client.errors import BadInput

STANDARD_INPUT = Path("-")


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
    for line, record in _records(path):
        if isinstance(record, str):
            yield record
        elif isinstance(text := record.get(column), str):
            yield text
        else:
            raise BadInput(f"{path}, line {line}: expected text in {column!r} (--column), got {list(record)}")


def _records(path: Path) -> Iterator[tuple[int, str | dict[str, object]]]:
    """Line number and record of each line that is not blank."""
    with _open(path) as lines:
        yield from _parsed(path, lines)


def _open(path: Path) -> TextIO:
    if path == STANDARD_INPUT:
        return sys.stdin
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error


def _parsed(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, str | dict[str, object]]]:
    try:
        if path.suffix == ".csv":
            reader = csv.DictReader(lines)
            yield from ((reader.line_num, row) for row in reader)
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _object(path, number, line) if path.suffix == ".jsonl" else line.strip("\r\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8 text, got the byte 0x{error.object[error.start]:02x}") from error
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
    """Rows of readings by the columns that a model reads, [n, d], their lines, and their times as written."""

    rows: list[list[float]]
    lines: list[int]
    times: list[str] | None

    def time_at(self, row: int) -> dict[str, str]:
        """The time of a row by the name "timestamp"; empty without times."""
        return {} if self.times is None else {"timestamp": self.times[row]}


def read_readings(path: Path, columns: Sequence[str], timestamp: str | None) -> Readings:
    """The columns of a CSV or JSONL file; others are ignored. Raises BadInput, which names line and column."""
    rows, lines, times = list[list[float]](), list[int](), list[str]()
    for line, record in _records(path):
        if isinstance(record, str):
            raise BadInput(f"{path}: expected a name that ends in .csv or .jsonl")
        rows.append([_number(path, line, name, record) for name in columns])
        lines.append(line)
        if timestamp is not None:
            times.append(str(_cell(path, line, timestamp, record)))
    if not rows:
        raise BadInput(f"{path}: expected rows of readings, got none")
    return Readings(rows, lines, times if timestamp is not None else None)


def _cell(path: Path, line: int, name: str, record: dict[str, object]) -> object:
    if name not in record:
        raise BadInput(f"{path}, line {line}: expected a column {name!r}, got {', '.join(map(str, record))}")
    return record[name]


def _number(path: Path, line: int, name: str, record: dict[str, object]) -> float:
    value = _cell(path, line, name, record)
    try:
        number = float(value)  # type: ignore[arg-type]  # the error says what came
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"{path}, line {line}, column {name!r}: expected a finite number, got {str(value)[:60]!r}")
    return number
