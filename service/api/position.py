"""Where in a JSON text something is, told from its bytes alone: by steps over the whole text, which leave other
threads their turns.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import orjson
from numpy.typing import NDArray

_COMMA, _QUOTE, _LIST, _OBJECT = b',"[{'
_BEFORE_VALUE = {_LIST: b"[,", _OBJECT: b":"}
_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


def path_to(text: bytes, at: int) -> tuple[int | str, ...] | None:
    """The keys and indices of the value that begins at a byte of a text; None where there cannot begin one.

    What is before it has to be JSON's beginning, at most 1,024 deep.
    """
    codes = _outside_strings(text[:at])
    steps = _STEPS[codes]
    depth = np.cumsum(steps, dtype=np.int16)
    lowest_from_here = np.minimum.accumulate(depth[::-1])[::-1]
    still_open = np.flatnonzero((steps > 0) & (depth == lowest_from_here)).tolist()
    if text[:at].rstrip()[-1:] not in (_BEFORE_VALUE[codes[still_open[-1]]] if still_open else b""):
        return None
    spans = enumerate(pairwise([*still_open, at]), start=1)
    return tuple(_step(text, start, codes[start:end], depth[start:end] == level) for level, (start, end) in spans)


def _step(text: bytes, start: int, codes: NDArray[np.uint8], own: NDArray[np.bool_]) -> int | str:
    """The index or key after the last comma of a list or an object that begins at `start`; `own` are the bytes that
    are in no other.
    """
    commas = np.flatnonzero((codes == _COMMA) & own)
    if codes[0] == _LIST:
        return len(commas)
    begin = 1 + (int(commas[-1]) if len(commas) else 0)
    key: str = orjson.loads(text[start + begin : start + len(codes)].rpartition(b":")[0])
    return key


def count_outside_strings(text: bytes, *marks: bytes) -> list[int]:
    """How many bytes of a text are one of each of `marks` and within no string."""
    codes = _outside_strings(text)
    return [sum(int(np.count_nonzero(codes == mark)) for mark in each) for each in marks]


def _outside_strings(text: bytes) -> NDArray[np.uint8]:
    """The bytes uint8 [n], 0 within strings."""
    codes = np.frombuffer(text.replace(rb"\\", b"__").replace(rb"\"", b"__"), dtype=np.uint8)
    within = np.cumsum(codes == _QUOTE, dtype=np.uint8) & 1
    return codes * (1 - within)
