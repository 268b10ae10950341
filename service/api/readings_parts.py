"""Parses the long lists of readings in a body part by part.

The parser holds the interpreter's lock until it ends, for 0.1 s where a body has a million numbers. Between parts,
other threads get the lock.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import InvalidRequest

READINGS = ("records", "series", "timestamps")
_PART_BYTES = 256 * 1024
# More than a row of the most columns that a model can have.
_MAX_ROW_BYTES = 256 * 1024
_SPACE = rb"[ \t\r\n]*+"
# By the first byte of a list: how an item in it ends, then what follows it; and how the last one ends.
_ENDS = {close: re.compile(re.escape(close) + _SPACE + rb"([,\]])") for close in (b"]", b"}")}
_LAST_ENDS = {close: re.compile(re.escape(close) + _SPACE + rb"(\])") for close in (b"]", b"}")}
_CLOSES = {b"[": b"]", b"{": b"}"}
_SCALAR_END, _LAST_SCALAR_END = re.compile(rb"([,\]])"), re.compile(rb"(\])")


# Begins as it is searched for, which is ten times as fast as one that begins with what may not be before it.
_NAN = re.compile(rb"NaN(?<![-\w]NaN)\b")
# Takes the place of a NaN, and is as long.
MISSING = b"\0\0\0"
# A reading is within a row, the row within a list, and the list within the body.
_READING_DEPTH = 3
_DEPTH_STEPS = ((b"[", 1), (b"{", 1), (b"]", -1), (b"}", -1))


@dataclass(frozen=True, slots=True)
class CutBody:
    """A body whose lists of readings are parsed; a mark stands in their place in `rest`."""

    rest: bytes
    lists: dict[str, list[Any]]
    mark: str

    def restore(self, parsed: Any) -> bool:
        """Put the readings into the parsed rest; False where their place is not one of its own fields."""
        mine = isinstance(parsed, dict) and all(parsed.get(name) == [self.mark] for name in self.lists)
        if mine:
            parsed.update(self.lists)
        return mine or not self.lists


def cut_readings(body: bytes, max_readings: int) -> CutBody:
    """Parse the lists of readings of a body; one that is not understood stays in the rest.

    Each part is valid JSON by itself, so that a list ends where it would for the whole body. Raises InvalidRequest as
    soon as a list has too many items.
    """
    mark, lists = secrets.token_hex(16), dict[str, list[Any]]()
    for name in READINGS:
        begin = re.search(b'"%b"%b:%b\\[%b' % (name.encode(), _SPACE, _SPACE, _SPACE), body)
        if begin is None:
            continue
        items, end = list[Any](), begin.end()
        for part, end, is_last in _parts(body, begin.end()):
            items += part
            if len(items) > max_readings:
                raise InvalidRequest(
                    f"{name} has more than {max_readings} items, {max_readings} are allowed: send them in several "
                    "requests",
                    param=name,
                )
            if is_last:
                body = b'%b"%b"%b' % (body[: begin.end()], mark.encode(), body[end:])
                lists[name] = items
    return CutBody(body, lists, mark)


def _parts(body: bytes, at: int) -> Iterator[tuple[list[Any], int, bool]]:
    """Parts of the list whose items begin at a byte, where each ends, and whether it is the last.

    Stops early where a part is no JSON.
    """
    close = _CLOSES.get(body[at : at + 1])
    is_last = False
    while not is_last:
        for end in _ends(body, at, close):
            stop = at + end.start() + (close is not None)
            try:
                part = orjson.loads(b"[%b]" % body[at:stop])
            except orjson.JSONDecodeError:
                continue
            is_last = end[1] == b"]"
            yield part, stop, is_last
            at += end.end()
            break
        else:
            return


def _ends(body: bytes, at: int, close: bytes | None) -> Iterator[re.Match[bytes]]:
    """Where the part that begins at a byte may end, from there on.

    The first that looks like an end may be within the name of a column. The next one is in no string.
    """
    window = body[at : at + _PART_BYTES + _MAX_ROW_BYTES]
    for blank in (bytes, blank_strings):
        if (end := _find_end(blank(window), close)) is not None:
            yield end


def _find_end(window: bytes, close: bytes | None) -> re.Match[bytes] | None:
    """Where the list ends, else where an item does after the part's size."""
    full = min(_PART_BYTES, len(window))
    if close is None:
        return _LAST_SCALAR_END.search(window, 0, full) or _SCALAR_END.search(window, full)
    begin = max(window.rfind(close, 0, full), 0)
    return _LAST_ENDS[close].search(window, 0, full) or _ENDS[close].search(window, begin)


def mark_missing(body: bytes) -> bytes:
    """The body with `MISSING` for each NaN that is a reading.

    A negative NaN is left, and so is one for which a field's default would count: for the error that names it.
    """
    if b"\0" in body:  # no JSON has it
        return body
    plain = blank_strings(body)
    starts = np.fromiter((found.start() for found in _NAN.finditer(plain)), np.int64)
    readings = starts[_depths(plain)[starts] >= _READING_DEPTH]
    marked = np.frombuffer(bytearray(body), np.uint8)
    for offset in range(len(MISSING)):
        marked[readings + offset] = 0
    return marked.tobytes()


def _depths(plain: bytes) -> NDArray[np.int16]:
    """How many lists and objects each byte is within, of bytes without strings. The parser takes at most 1,024."""
    characters = np.frombuffer(plain, np.uint8)
    steps = np.zeros(len(characters), np.int8)
    for mark, step in _DEPTH_STEPS:
        steps[characters == ord(mark)] = step
    return np.cumsum(steps, dtype=np.int16)


def blank_strings(part: bytes) -> bytes:
    """The same bytes with NUL for those in strings; `part` begins outside of strings."""
    plain = np.frombuffer(part.replace(b"\\\\", b"__").replace(b'\\"', b"__"), np.uint8)
    is_within = np.cumsum(plain == ord('"'), dtype=np.uint8) & 1  # the count may wrap: only its last bit is used
    return np.where(is_within, np.uint8(0), plain).tobytes()
