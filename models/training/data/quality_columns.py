"""Columns that say how good the readings before them are, as SCADA systems and historians export them."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.training.errors import quote, shorten

# The last word of a name, such as `TT101.Quality` or `flow (status)`.
_WORD = re.compile("quality|qualität|qual|qc|q|validity|status", re.IGNORECASE)
_NAME = re.compile(rf"(?:.*[^a-z])?(?:{_WORD.pattern})[)\]]?", re.IGNORECASE)
_GOOD = ("good", "valid")
_OTHERS = ("bad", "uncertain", "questionable", "substituted", "stale", "invalid", "not good")


def is_quality_name(name: str) -> bool:
    """Whether a column may say how good readings are, by its name."""
    return _NAME.fullmatch(name.strip()) is not None


def find_quality(table: pa.Table, taken: Collection[str | None], used: Collection[str]) -> dict[str, str]:
    """The column of quality directly after a column of readings, by the name of the latter; none of those `taken`.

    A name such as `status` alone could be that of a label, unless it comes after the first column that is `used`, by
    default the first one that is not taken.
    """
    first = next((name for name in table.column_names if name not in taken and (not used or name in used)), None)
    return {
        before: name
        for before, name in pairwise(table.column_names)
        if not {before, name} & set(taken)
        and is_quality_name(name)
        and (before == first or not _WORD.fullmatch(name.strip()))
        and _has_words(table.column(name))
    }


def is_good(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Of each row, whether nothing is said against its reading [n]."""
    bad = pc.is_in(_words(column), value_set=pa.array(_OTHERS))
    return ~np.array(bad, dtype=np.bool_)


def describe_left_out(columns: Collection[str], rows: int) -> str:
    """What to say of the columns of quality that were used, and of the number of readings that they refuse."""
    return f"{rows} readings left out that are not good by {shorten(', '.join(map(quote, columns)))}"


def _has_words(column: pa.ChunkedArray) -> bool:
    """Whether all cells are words of quality, and one of them is good."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    found = set(pc.unique(_words(column)).to_pylist()) - {None, ""}
    return found <= {*_GOOD, *_OTHERS} and not found.isdisjoint(_GOOD)


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_lower(pc.utf8_trim_whitespace(column))
