"""Whether the names of a table's columns are a row, because its file has no header."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from models.training.errors import data_error, quote

_NUMBER = re.compile(r"[+-]?([0-9][0-9.,' \u00a0\u202f]*|[.,][0-9]+)(e[+-]?[0-9]+)?%?", re.IGNORECASE)
_DATE = re.compile(r"[0-9]{4}[-/.][0-9]{1,2}\b.*|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2,4}\b.*|[0-9]{1,2}:[0-9]{2}\b.*")
# Columns that count, as hours 1 to 24 or years do. Two numbers may be readings.
_LEAST_COUNTING = 3


def require_header(table: pa.Table, param: str) -> None:
    """Raise TrainingDataError where the names of a table of texts are numbers, dates or cells of their columns.

    Columns that are numbered are named so: 0, 1, 2, as pandas writes them.
    """
    names = [name for name in table.column_names if name.strip()]
    like_data = [name for name in names if _is_datum(name)]
    if not like_data or _is_counting(names):
        return
    if all(name in like_data or _occurs(name, table.column(name)) for name in names):
        shown = ", ".join(map(quote, names[:3])) + (", …" if len(names) > 3 else "")
        raise data_error(
            param, "no_header", "the columns' names", f"a row ({shown}); write a line of names above it", line=1
        )


def _is_datum(name: str) -> bool:
    return bool(_NUMBER.fullmatch(name.strip()) or _DATE.fullmatch(name.strip()))


def _is_counting(names: list[str]) -> bool:
    try:
        numbers = [int(name) for name in names]
    except ValueError:
        return False
    first, count = numbers[0], len(numbers)
    return numbers == list(range(first, first + count)) and (first == 0 or count >= _LEAST_COUNTING)


def _occurs(name: str, column: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.equal(pc.utf8_trim_whitespace(column), name.strip())).as_py())
