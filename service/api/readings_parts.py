"""Parses the long lists of readings in a body part by part.

The parser holds the interpreter's lock until it ends, for 0.1 s where a body has a million numbers. Between parts,
other threads get the lock.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import orjson

from service.errors import InvalidRequest

READINGS = ("records", "series", "timestamps")
_PART_BYTES = 256 * 1024
# More than a row of the most columns that a model can have.
_MAX_ROW_BYTES = 256 * 1024
# Ends of a part to try: the first ones may be within the name of a column.
_MAX_ENDS = 8
_SPACE = rb"[ \t\r\n]*+"
# By the first byte of a list: how an item in it ends, then what follows it; and how the last one ends.
_ENDS = {close: re.compile(re.escape(close) + _SPACE + rb"([,\]])") for close in (b"]", b"}")}
_LAST_ENDS = {close: re.compile(re.escape(close) + _SPACE + rb"(\])") for close in (b"]", b"}")}
_CLOSES = {b"[": b"]", b"{": b"}"}
_SCALAR_END, _LAST_SCALAR_END = re.compile(rb"([,\]])"), re.compile(rb"(\])")


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
        for end in islice(_ends(body, at, close), _MAX_ENDS):
            stop = end.start() + (close is not None)
            try:
                part = orjson.loads(b"[%b]" % body[at:stop])
            except orjson.JSONDecodeError:
                continue
            is_last = end[1] == b"]"
            yield part, stop, is_last
            at = end.end()
            break
        else:
            return


def _ends(body: bytes, at: int, close: bytes | None) -> Iterator[re.Match[bytes]]:
    """Where the part that begins at a byte may end: with the list, else with an item after the part's size."""
    full = min(at + _PART_BYTES, len(body))
    if close is None:
        ends, last_ends, begin = _SCALAR_END, _LAST_SCALAR_END, full
    else:
        ends, last_ends, begin = _ENDS[close], _LAST_ENDS[close], max(body.rfind(close, at, full), at)
    return chain(last_ends.finditer(body, at, full), ends.finditer(body, begin, full + _MAX_ROW_BYTES))
