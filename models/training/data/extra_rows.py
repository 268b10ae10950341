"""Rows of a file that hold no readings: the header again, and lines of totals or of nothing at the end."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.counted import counted
from models.training.data.column_parser import is_text
from models.training.data.file_reader import FileColumns

# More rows without a time are no totals.
_MOST_TOTALS = 20


def leave_out_extra_rows(file: FileColumns, timestamp: str | None) -> FileColumns:
    """The file without such rows; `read_as` says how many they were.

    The time of a line of totals has no digit; without a column of times there are none.
    """
    for find, one, many in (
        (_repeats_header, "row left out that repeats the header", "rows left out that repeat the header"),
        (_is_empty_end, "empty row at the end left out", "empty rows at the end left out"),
    ):
        file = _select(file, ~find(file.table), one, many)
    if timestamp in file.table.column_names:
        file = _select(
            file,
            ~_is_totals(file.table.column(timestamp)),
            "row at the end left out, which has no time",
            "rows at the end left out, which have no time",
        )
    return file


def _select(file: FileColumns, kept: NDArray[np.bool_], one: str, many: str) -> FileColumns:
    if kept.all():
        return file
    read_as = (*file.read_as, counted(int((~kept).sum()), one, many))
    return replace(file, table=file.table.filter(pa.array(kept)), lines=file.lines[kept], read_as=read_as)


def _repeats_header(table: pa.Table) -> NDArray[np.bool_]:
    """Of each row [n], whether its cells are the names."""
    same = np.zeros(len(table), dtype=np.bool_)
    if not table.num_columns or not all(is_text(column) for column in table.columns):
        return same
    rows = np.arange(len(table))
    for name in table.column_names:
        rows = rows[_equals(table.column(name).take(rows), name.strip())]
        if not len(rows):
            return same
    same[rows] = True
    return same


def _is_empty_end(table: pa.Table) -> NDArray[np.bool_]:
    """Of each row [n], whether it and all below it have empty cells alone."""
    last = table.slice(max(len(table) - 1, 0))
    if not table.num_columns or not all(is_text(column) and _equals(column, "").all() for column in last.columns):
        return np.zeros(len(table), dtype=np.bool_)
    filled = np.flatnonzero(~reduce(np.logical_and, (_equals(column, "") for column in table.columns)))
    end = filled[-1] + 1 if len(filled) else 0
    return np.arange(len(table)) >= end


def _is_totals(times: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Of each row [n], whether it is one of the last few, whose times have no digit."""
    rows = np.arange(len(times))
    if len(times) <= _MOST_TOTALS or not is_text(times):
        return rows < 0
    digits = pc.fill_null(pc.match_substring_regex(times.slice(max(len(times) - _MOST_TOTALS - 1, 0)), "[0-9]"), False)
    timed = np.flatnonzero(np.array(digits))
    return rows > rows[-1] - (len(digits) - 1 - timed[-1]) if len(timed) else rows < 0


def _equals(column: pa.ChunkedArray, text: str) -> NDArray[np.bool_]:
    return np.array(pc.equal(pc.fill_null(pc.utf8_trim_whitespace(column), ""), text), dtype=np.bool_)
