"""Columns that say how good the readings before them are, as SCADA systems and historians export them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.counted import counted
from models.training.data.column_parser import is_text
from models.training.errors import quote, shorten

# The last word of a name, such as `TT101.Quality` or `flow (status)`.
_WORD = re.compile("quality|qualität|qual|qc|q|validity|status(?: ?code)?", re.IGNORECASE)
_NAME = re.compile(rf"(?:.*[^a-z])?(?:{_WORD.pattern})[)\]]?", re.IGNORECASE)
# Words that are symbols, too: of a flow or a heat. What the name of a value may end with.
_SYMBOL = re.compile("(?:^|[^a-z])(?:q|qc)[)\\]]?$", re.IGNORECASE)
_VALUE = re.compile("(?:^|[^a-z])(?:values?|val|v|pv|wert)[)\\]]?$", re.IGNORECASE)
_OTHERS = "bad|uncertain|questionable|substituted|stale|invalid|not good"
# A detail may follow a word: ", Sensor Failure" or " (0x00C0)".
_WORDS = re.compile(rf"(?:(?P<good>good|valid)|{_OTHERS})(?:[^a-z].*)?", re.DOTALL)
# OPC's qualities, less the two bits of limits: up to 32 are bad, 64 to 88 uncertain, from 192 on good.
_OPC_CODES, _OPC_GOOD = frozenset((*range(0, 36, 4), 64, 68, 80, 84, 88, 192, 216)), 192
_OPC_LIMITS = 3
_OPC_CODE = re.compile("[0-9]{1,3}")
# OPC UA's status codes: the two highest bits are 0 for good ones.
_STATUS_CODE = re.compile("0x(?:(?P<good>[0-3])|[4-9a-f])[0-9a-f]{7}")
# A column of quality repeats a few cells.
_MOST_CELLS = 256


@dataclass(frozen=True, slots=True)
class Quality:
    """A column of quality: of each row, whether nothing is said against its reading [n]."""

    name: str
    good: NDArray[np.bool_]


def is_quality_name(name: str) -> bool:
    """Whether a column may say how good readings are, by its name."""
    return _NAME.fullmatch(name.strip()) is not None


def find_quality(table: pa.Table, taken: Collection[str | None], used: Collection[str]) -> dict[str, Quality]:
    """The column of quality directly after a column of readings, by the name of the latter; none of those `taken`.

    A name such as `status` alone could be that of a label. It is not where it comes after the first column that is
    `used`, by default the first one that is not taken. What is used itself is a column of readings.
    """
    first = next((name for name in table.column_names if name not in taken and (not used or name in used)), None)
    found = dict[str, Quality]()
    for before, name in pairwise(table.column_names):
        if {before, name} & set(taken) or name in used or not is_quality_name(name):
            continue
        if before == first or not _WORD.fullmatch(name.strip()):
            good = _read_quality(table.column(name), may_be_codes=_is_no_symbol(before, name))
            found |= {} if good is None else {before: Quality(name, good)}
    return found


def _is_no_symbol(before: str, name: str) -> bool:
    """Whether a name is not one of a flow or a heat: a Q belongs to the very name before it, as in `P.Value`, `P.Q`."""
    symbol = _SYMBOL.search(name.strip())
    names = (before.strip(), _VALUE.sub("", before.strip()))
    return symbol is None or _stem(name.strip()[: symbol.start()]) in map(_stem, names)


def _stem(name: str) -> str:
    """The beginning of a name without the spaces and the bracket before its last word."""
    return name.rstrip(" ([")


def describe_left_out(qualities: Collection[Quality]) -> str:
    """What to say of the columns of quality that were used, and of the number of readings that they refuse."""
    rows = sum(int((~quality.good).sum()) for quality in qualities)
    by = shorten(", ".join(quote(quality.name) for quality in qualities))
    left_out = counted(rows, "reading left out that is", "readings left out that are")
    return f"{left_out} not good by {by}"


def _read_quality(column: pa.ChunkedArray, *, may_be_codes: bool) -> NDArray[np.bool_] | None:
    """Of each row, whether it is not bad [n]; None where a cell is neither of quality nor empty, or none is good."""
    if not is_text(column) and not (may_be_codes and pa.types.is_integer(column.type)):
        return None
    encoded = pc.dictionary_encode(pc.fill_null(pc.cast(column, pa.string()), "")).combine_chunks()
    if len(encoded.dictionary) > _MOST_CELLS:
        return None
    cells = [cell.strip().lower() for cell in encoded.dictionary.to_pylist()]
    for reader in (_is_good_word, _is_good_status, *([_is_good_opc] if may_be_codes else [])):
        good = {cell: reader(cell) for cell in cells if cell}
        if None not in good.values() and any(good.values()):
            verdicts = np.array([good.get(cell, True) for cell in cells], dtype=np.bool_)
            return np.asarray(verdicts[np.array(encoded.indices)])
    return None


def _is_good_word(cell: str) -> bool | None:
    found = _WORDS.fullmatch(cell)
    return None if found is None else found["good"] is not None


def _is_good_opc(cell: str) -> bool | None:
    if not _OPC_CODE.fullmatch(cell):
        return None
    code = int(cell) & ~_OPC_LIMITS
    return code >= _OPC_GOOD if code in _OPC_CODES else None


def _is_good_status(cell: str) -> bool | None:
    found = _STATUS_CODE.fullmatch(cell)
    return None if found is None else found["good"] is not None
