"""What is wrong with a body that is not JSON, and where."""

from __future__ import annotations

import math
import re

import orjson

from service.api.error_responses import path_of
from service.api.schemas.requests import shorten_name
from service.errors import MalformedBody

# Python's and C's spellings too, so that a client learns which of its values JSON cannot say.
_NUMBER = re.compile(r"-?(?:(?i:nan|inf|infinity)\b|[0-9][0-9.eE+-]*)", re.ASCII)
# The last string may be cut off. Possessive, so that no text makes the expression go back.
_STRING = r'"(?:[^"\\]++|\\.)*+"?'
# A list or object that holds no other is one step, because it ends before the fault begins.
_STEPS = re.compile(rf"[\[{{](?:[^]\[{{}}\"]++|{_STRING})*+[]}}]|{_STRING}|[]\[{{}},]", re.DOTALL)
# The walk to a value holds the interpreter for 0.3 s a MiB.
_MAX_CHARACTERS_TO_VALUE = 2 * 1024 * 1024


def malformed_body(error: orjson.JSONDecodeError) -> MalformedBody:
    """The parser's error, with its line and column.

    For a number that is not finite, the error names the number's path instead.
    """
    text, at = error.doc, error.pos
    at -= text[at - 1 : at] == "-"  # of -Infinity, orjson points at the I
    if (number := _non_finite_number(text, at)) and (path := _path_to(text, at)) is not None:
        param = path_of(("body", *path)) or "body"
        expected = "expected a finite number (float64, at most 1.8e308 either way)"
        return MalformedBody(f"{param}: {expected}, got {shorten_name(number)}", param=param)
    return MalformedBody(f"the body is not JSON in UTF-8: {error}")


def _non_finite_number(text: str, at: int) -> str | None:
    """The number that begins at a character, if it is NaN, infinite or too large."""
    found = _NUMBER.match(text, at)
    try:
        return found[0] if found and not math.isfinite(float(found[0])) else None
    except ValueError:
        return None


def _path_to(text: str, at: int) -> tuple[int | str, ...] | None:
    """The keys and indices of the value that begins at a character.

    None where no value can begin. The text before it must be the beginning of valid JSON. Empty beyond
    `_MAX_CHARACTERS_TO_VALUE`.
    """
    if at > _MAX_CHARACTERS_TO_VALUE:
        return ()
    path: list[int | str] = []
    for step in _STEPS.finditer(text, 0, at):
        match step[0]:
            case "[":
                path.append(0)
            case "{":
                path.append("")
            case "]" | "}":
                path.pop()
            case ",":
                path[-1] = path[-1] + 1 if isinstance(path[-1], int) else ""
            case string if string[0] == '"' and path and isinstance(path[-1], str):
                path[-1] = string  # an object's last string before a value is the value's key
    before = text[:at].rstrip()[-1:]
    begins = {"[", ","} if path and isinstance(path[-1], int) else {":" if path else ""}
    if before not in begins:
        return None
    return tuple(part if isinstance(part, int) else orjson.loads(part) for part in path)
