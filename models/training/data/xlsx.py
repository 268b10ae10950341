"""Workbooks of spreadsheets: the first sheet as columns of text."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path

import openpyxl
import pyarrow as pa

from models.training.errors import data_error

# Of all parts of the workbook, unpacked: the archive states it, and unpacking a part stops there.
_MAX_BYTES = 1 << 30
_MOST_ROWS, _MOST_COLUMNS = 1_000_000, 1000
_BATCH = 4096


def read_sheet(path: Path, param: str) -> tuple[pa.Table, list[int]]:
    """Columns of text below the first row that is not empty, and the row of each.

    Formulas give their last value. Raises TrainingDataError for a file that is no workbook or too large.
    """
    _require_small(path, param)
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        rows = ((number, row) for number, row in enumerate(sheet.iter_rows(values_only=True), start=1) if any_cell(row))
        return _to_table(rows, param)
    except (KeyError, IndexError, ValueError, TypeError, OSError, SyntaxError, zipfile.BadZipFile) as error:
        got = f"one that cannot be read ({str(error)[:200] or type(error).__name__})"
        raise data_error(param, "invalid_xlsx", "an XLSX workbook", got) from None


def any_cell(row: Sequence[object]) -> bool:
    """Whether a row has a cell with something in it."""
    return any(cell is not None and cell != "" for cell in row)


def _require_small(path: Path, param: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise data_error(param, "invalid_xlsx", "an XLSX workbook", "a file that is no ZIP archive") from None
    if size > _MAX_BYTES:
        raise data_error(param, "file_too_large", f"at most {_MAX_BYTES:,} bytes unpacked", f"{size:,}")


def _to_table(rows: Iterator[tuple[int, Sequence[object]]], param: str) -> tuple[pa.Table, list[int]]:
    _, header = next(rows, (0, ()))
    width = max((at + 1 for at, cell in enumerate(header) if cell is not None), default=0)
    if not 1 <= width <= _MOST_COLUMNS:
        raise data_error(param, "wrong_columns", f"1 to {_MOST_COLUMNS:,} columns", f"{width:,}")
    names = [_text(cell) or "" for cell in header[:width]]
    for name in names:
        if names.count(name) > 1:
            raise data_error(param, "duplicate_key", "each column once", "it twice", column=name)
    schema, batches, lines = pa.schema([(name, pa.string()) for name in names]), [], list[int]()
    while part := list(islice(rows, _BATCH)):
        lines += [number for number, _ in part]
        if len(lines) > _MOST_ROWS:
            raise data_error(param, "too_many_rows", f"at most {_MOST_ROWS:,} rows", "more")
        cells = [[_text(row[at]) if at < len(row) else None for _, row in part] for at in range(width)]
        batches.append(pa.record_batch([pa.array(column, pa.string()) for column in cells], schema=schema))
    return pa.Table.from_batches(batches, schema), lines


def _text(cell: object) -> str | None:
    """A cell as a CSV has it."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    return cell.isoformat() if isinstance(cell, datetime | date | time) else repr(cell)
