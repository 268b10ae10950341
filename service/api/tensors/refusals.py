"""Refusals of a body that msgspec reads: what it expected, and what came."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from models.counted import counted
from service.errors import InvalidRequest

_LONGEST = 40
# A larger body is not read once more for its message: as objects it would take up to a hundred times its bytes.
_MOST_READ = 256 * 1024
_STEPS = re.compile(r"[^.\[\]]+")


def validation_error(error: msgspec.ValidationError, content: bytes | memoryview) -> InvalidRequest:
    """What msgspec says of a field of a body, as an error of ours that names it and what came."""
    message, _, where = str(error).partition(" - at `$")
    path = where.strip("`.")
    said = message[:1].lower() + message[1:]
    if said.startswith("object contains unknown field"):
        said = f"{said}: leave it out"
    elif said.startswith("expected") and ", got " not in said and len(content) <= _MOST_READ:
        said += _got(content, path)
    return InvalidRequest.at(path or "body", said)


def _got(content: bytes | memoryview, path: str) -> str:
    """What came; nothing where the body ends or is no JSON behind the field, or has its name twice."""
    try:
        return f", got {_describe(_find(content, path))}"
    except (msgspec.DecodeError, LookupError, ValueError, RecursionError):
        return ""


def _find(content: bytes | memoryview, path: str) -> bytes | memoryview:
    """The JSON of a field. Each step makes no more objects than msgspec did on its way there."""
    for step in _STEPS.findall(path):
        is_list = bytes(content).lstrip().startswith(b"[")
        kind: Any = list[msgspec.Raw] if is_list else dict[str, msgspec.Raw]
        content = memoryview(msgspec.json.decode(content, type=kind)[int(step) if is_list else step])
    return content


def _describe(content: bytes | memoryview) -> str:
    """A number as it came; of a list and a string, the length."""
    one = bytes(content).strip()
    if one.startswith(b"["):
        return counted(len(msgspec.json.decode(one, type=list[msgspec.Raw])), "item")
    if one.startswith(b'"'):
        return counted(len(msgspec.json.decode(one, type=str)), "character")
    return one[:_LONGEST].decode()
