"""Workbooks of spreadsheets: the first sheet as columns of text."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
from openpyxl.worksheet._reader import WorkSheetParser

from models.training.data.file_limits import FileLimits, name_unnamed
from models.training.errors import data_error

# Of all parts of the workbook, unpacked: the archive states it, and unpacking a part stops there.
_MAX_BYTES = 1 << 30
_MOST_ROWS, _MOST_COLUMNS = 1_000_000, 1000
# The last row that a sheet can have. A file may name a later one, and openpyxl would count all rows before it.
_LAST_ROW = 1 << 20
_BATCH = 4096
# What openpyxl and zipfile raise for a file that is no workbook: SyntaxError is of its XML, RuntimeError of encryption.
_UNREADABLE = (
    *(KeyError, IndexError, ValueError, TypeError, AttributeError, OSError, EOFError, SyntaxError, RuntimeError),
    ArithmeticError,
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
_Rows = Iterator[tuple[int, Sequence[object]]]


def read_sheet(path: Path, limits: FileLimits) -> tuple[pa.Table, list[int]]:
    """Columns of text below the first row that is not empty, and the row of each.

    Formulas give their last value. Raises TrainingDataError for a file that is no workbook or too large.
    """
    limits.require_bytes(unpacked_bytes(path, limits.param), _MAX_BYTES, " unpacked")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # else rows and columns beyond those that the file states are left out
        return _to_table(partial(_rows, sheet, limits.param), limits)
    except _UNREADABLE as error:
        got = f"one that cannot be read ({str(error)[:200] or type(error).__name__})"
        raise data_error(limits.param, "invalid_xlsx", "an XLSX workbook", got) from None


def _rows(sheet: Any, param: str, first: int, width: int) -> _Rows:
    """The number and cells of each row that is not empty, from the row `first` on.

    Raises TrainingDataError for rows whose numbers do not rise: openpyxl would leave those out.
    """
    before = 0
    for number, cells in _parsed_rows(sheet):
        if number > _LAST_ROW:
            raise data_error(param, "too_many_rows", f"rows up to {_LAST_ROW:,}", "more")
        if number <= before:
            raise data_error(param, "invalid_xlsx", "rows whose numbers rise", f"row {number:,} after row {before:,}")
        before = number
        row: list[object] = [None] * width
        for cell in cells:
            if cell["column"] <= width:
                row[cell["column"] - 1] = cell["value"]
        if number >= first and _has_content(row):
            yield number, row


def _parsed_rows(sheet: Any) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The number of each row and its cells, as `iter_rows` of a read-only sheet reads them."""
    book = sheet.parent
    with sheet._get_source() as source:  # noqa: SLF001
        yield from WorkSheetParser(
            source,
            sheet._shared_strings,  # noqa: SLF001
            data_only=book.data_only,
            epoch=book.epoch,
            date_formats=book._date_formats,  # noqa: SLF001
            timedelta_formats=book._timedelta_formats,  # noqa: SLF001
        ).parse()


def _has_content(row: Sequence[object]) -> bool:
    return any(cell is not None and cell != "" for cell in row)


def unpacked_bytes(path: Path, param: str) -> int:
    """The bytes of all parts of a workbook, unpacked. Raises TrainingDataError for a file that is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise data_error(param, "invalid_xlsx", "an XLSX workbook", "a file that is no ZIP archive") from None


def _to_table(rows_from: Callable[[int, int], _Rows], limits: FileLimits) -> tuple[pa.Table, list[int]]:
    """The table of rows that are read from a first one on, to a width."""
    first, header = next(rows_from(1, _MOST_COLUMNS + 1), (0, ()))
    width = max((at + 1 for at, cell in enumerate(header) if cell is not None), default=0)
    if not 1 <= width <= _MOST_COLUMNS:
        raise limits.error("wrong_columns", f"1 to {_MOST_COLUMNS:,} columns", f"{width:,}")
    names = name_unnamed([_text(cell) or "" for cell in header[:width]])
    limits.require_unique(names)
    schema, batches, lines = pa.schema([(name, pa.string()) for name in names]), [], list[int]()
    rows = rows_from(first + 1, width)
    while part := list(islice(rows, _BATCH)):
        lines += [number for number, _ in part]
        if len(lines) > _MOST_ROWS:
            raise limits.error("too_many_rows", f"at most {_MOST_ROWS:,} rows", "more")
        cells = [[_text(row[at]) for _, row in part] for at in range(width)]
        batches.append(pa.record_batch([pa.array(column, pa.string()) for column in cells], schema=schema))
    return pa.Table.from_batches(batches, schema), lines


def _text(cell: object) -> str | None:
    """A cell as a CSV has it."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, timedelta):
        return str(cell)  # "1 day, 12:00:00"
    return cell.isoformat() if isinstance(cell, datetime | date | time) else repr(cell)
