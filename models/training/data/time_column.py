"""A time of day in a column of its own, beside a column of dates: loggers often write a timestamp as two."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import pyarrow as pa

# A spreadsheet has a day as its midnight.
_MIDNIGHT = re.compile(r"[ T]00:00(:00)?$")
_DATE = re.compile(r"[0-9]{1,4}([./-])[0-9]{1,2}\1[0-9]{2,4}([ T]00:00(:00)?)?")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?(\s*[AaPp]\.?[Mm]\.?)?")
_LOOKED_AT = 256


def find_clock(table: pa.Table, dates: str | None, taken: Collection[str]) -> str | None:
    """The only column, of those not `taken`, with times of day, where the column `dates` has days alone; else None."""
    if dates is None or dates not in table.column_names or not _all_match(_DATE, table, dates):
        return None
    found = [name for name in table.column_names if name not in taken and _all_match(_CLOCK, table, name)]
    return found[0] if len(found) == 1 else None


def join(days: Sequence[str], clocks: Sequence[str]) -> list[str]:
    """Days and times of day as timestamps; empty where one of them is."""
    return [_join(day, clock) if day and clock else "" for day, clock in zip(days, clocks, strict=True)]


def _join(day: str, clock: str) -> str:
    hour, rest = clock.split(":", 1)
    return f"{_MIDNIGHT.sub('', day)} {hour:0>2}:{rest}"


def _all_match(form: re.Pattern[str], table: pa.Table, name: str) -> bool:
    """Whether the first cells of a column of texts are of a form."""
    column = table.column(name).slice(0, _LOOKED_AT)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    cells = [cell.strip() for cell in column.to_pylist() if cell and cell.strip()]
    return bool(cells) and all(map(form.fullmatch, cells))
