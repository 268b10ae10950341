"""One line of JSONL as an object, by orjson; the json module names its faults."""

from __future__ import annotations

import json

import orjson

from models.training.errors import data_error

_ARRAY_HINT = " (one object a line, not one array)"


def parse_object(text: str, line: int, param: str) -> dict[str, object]:
    """Parse a line. Raises TrainingDataError for anything but an object with unique keys."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        value = _parse_with_constants(text, line, param, error)
    if not isinstance(value, dict):
        hint = _ARRAY_HINT if isinstance(value, list) else ""
        raise data_error(param, "not_an_object", "a JSON object", _json_name(value) + hint, line=line)
    # One colon for each key and none to spare: no key can have come twice. Otherwise the slow parser looks.
    if text.count(":") != _count_keys(value):
        _require_unique_keys(text, line, param)
    return value


def _parse_with_constants(text: str, line: int, param: str, error: orjson.JSONDecodeError) -> object:
    """Read NaN and Infinity, which Python writes, so that the row parser names their column."""
    if "NaN" in text or "Infinity" in text:
        try:
            return json.loads(text, parse_int=_parse_int)
        except (json.JSONDecodeError, RecursionError):
            pass  # the message below names the first fault
    got = f"text that is no JSON ({error.msg.split(':')[0]}, at character {error.colno})"
    hint = _ARRAY_HINT if text.startswith("[") else ""
    raise data_error(param, "invalid_json", "a JSON object", got + hint, line=line) from None


def _parse_int(digits: str) -> float:
    """An integer; past 19 digits a float, because Python's int takes quadratic time."""
    return int(digits) if len(digits) < 20 else float(digits)


def _count_keys(value: object) -> int:
    """Count the keys of an object and all in it; orjson has already limited the depth."""
    waiting, count = [value], 0
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            count += len(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return count


def _require_unique_keys(text: str, line: int, param: str) -> None:
    def build(items: list[tuple[str, object]]) -> dict[str, object]:
        seen: dict[str, object] = {}
        for key, value in items:
            if key in seen:
                raise data_error(param, "duplicate_key", "each key once", "it twice", line=line, column=key)
            seen[key] = value
        return seen

    try:
        json.loads(text, object_pairs_hook=build, parse_int=float)
    except RecursionError:
        raise data_error(param, "invalid_json", "a flat object", "deep nesting", line=line) from None


def _json_name(value: object) -> str:
    return {list: "an array", str: "text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
