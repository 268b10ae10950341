"""Bodies at the limit of bytes that cost a server most, for each route of an OpenAPI document that reads JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_MAX_BYTES = 16 * 2**20
_READINGS = ("records", "series", "timestamps")
# Each of these names a model, not what is computed.
_NAMES = {"model", "target", "training_file"}


@dataclass(frozen=True, slots=True)
class CostlyBody:
    """A body, and the route that it is for: by its path of the document, and by that to send it to."""

    kind: str
    route: str
    method: str
    path: str
    content: bytes


def costly_bodies(
    document: dict[str, Any], models: dict[str, str], max_bytes: int = _MAX_BYTES
) -> Iterator[CostlyBody]:
    """All kinds of costly bodies for all routes that read JSON.

    `models` has a served model's name by route; "" is that of all other routes.
    """
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            schema = _resolve(document, content.get("schema", {}))
            model = models.get(path, models[""])
            place = path.replace("{model}", model).replace("{deployment}", model).replace("{alias}", "alias")
            for kind, body in _bodies(schema, model, max_bytes):
                yield CostlyBody(kind, path, method.upper(), place, body)


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    for option in [schema, *schema.get("anyOf", [])]:
        if "$ref" in option:
            found: dict[str, Any] = document["components"]["schemas"][option["$ref"].rsplit("/", 1)[1]]
            return found
    return schema


def _bodies(schema: dict[str, Any], model: str, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    properties = schema.get("properties", {})
    room = max_bytes - 1024
    values = _values(room)
    names = [name for name, about in properties.items() if name not in _NAMES and _takes_much(about)] or ["input"]
    names.sort(key=lambda name: name != "input")  # texts, before tensors
    for kind, value in values.items():
        yield kind, _body(schema, model, {names[0]: value})
    for name in [one for one in names if one in _READINGS]:
        for kind, value in _readings(room, name).items():
            yield f"{name}: {kind}", _body(schema, model, {name: value})
    for name in [one for one in ("labels", "metadata", "documents", "texts", "reference") if one in properties]:
        for kind in ("short texts", "objects of one text", "keys", "one long text"):
            yield f"{name}: {kind}", _body(schema, model, {name: values[kind]})
    yield "unknown keys", _body(schema, model, {}, _numbered(room, b"1"))
    yield "unknown lists", _body(schema, model, {}, _numbered(room, b"[]"))
    yield "a long key", _body(schema, model, {}, b'"%b":1' % (b"k" * room))
    yield "the same key", _body(schema, model, {}, (b'"k":1,' * (room // 6))[:-1])


def _takes_much(about: dict[str, Any]) -> bool:
    options = about.get("anyOf", [about])
    return any(one.get("type") in ("string", "array", "object", None) and "enum" not in one for one in options)


def _body(schema: dict[str, Any], model: str, given: dict[str, bytes], more: bytes = b"") -> bytes:
    """A body of the required fields and those given."""
    small = {"string": b'"a"', "array": b'["a","b"]', "integer": b"1"}
    fields = {"model": json.dumps(model).encode()} if "model" in schema.get("properties", {}) else {}
    for name in schema.get("required", []):
        options = schema["properties"][name].get("anyOf", [schema["properties"][name]])
        fields.setdefault(name, small.get(options[0].get("type"), b'["a","b"]'))
    parts = [b'"%b":%b' % (name.encode(), value) for name, value in {**fields, **given}.items()]
    return b"{%b}" % b",".join([*parts, *([more] if more else [])])


def _values(room: int) -> dict[str, bytes]:
    """Values of a field that takes texts, labels or token ids."""
    return {
        "short texts": _repeated(b'"a"', room),
        "as many texts as allowed": _repeated(b'"%b"' % (b"word " * (room // 2048 // 6)), room, 2048),
        "one long text": b'"%b"' % (b"long text " * (room // 10)),
        "one long word": b'"%b"' % (b"a" * room),
        "marks": b'"a%b"' % ("\u0315\u0327".encode() * (room // 4)),
        "objects of one text": _repeated(b'{"text":"a"}', room),
        "keys": b"{%b}" % _numbered(room, b'"a"'),
        "keys of a list": b"{%b}" % _numbered(room, b'["a"]'),
        "token ids": _repeated(b"1", room),
        "as many token ids as allowed": _repeated(b"101", room, 300_000),
        "lists of token ids": _repeated(b"[1]", room),
        "pairs": _repeated(b'["a","a"]', room),
        "deep lists": b"[" * (room // 2) + b"]" * (room // 2),
        "lists within the depth": _repeated(b"[" * 500 + b"]" * 500, room),
        "deep objects": b'{"a":' * (room // 6) + b"1" + b"}" * (room // 6),
        "a number of all digits": b"9" * room,
        "a long fraction": b"0.%b" % (b"9" * room),
        "numbers of 300 digits": _repeated(b"9" * 300, room),
        "the last number infinite": b"[%b1e999]" % (b"1," * (room // 2)),
        "escapes": b'"%b"' % (b"\\u0041" * (room // 6)),
        "NUL": b'"%b"' % (b"\\u0000" * (room // 6)),
        "surrogates": b'"%b"' % (b"\\ud800" * (room // 6)),
        "quotes": b'"%b"' % (b'\\"' * (room // 2)),
        "backslashes": b'"%b"' % (b"\\\\" * (room // 2)),
        "base64": b'"%b"' % (b"QUFB" * (room // 4)),
        "spaces": b"[%b]" % (b" " * room),
        "no UTF-8": b'"%b"' % (b"\xff" * room),
    }


def _readings(room: int, name: str) -> dict[str, bytes]:
    """Values of a field that takes readings."""
    if name == "timestamps":
        return {"numbers": _repeated(b"1", room), "texts": _repeated(b'"2026-01-01T00:00:00Z"', room)}
    number = b"0.123456789"
    rows = {columns: b"[%b]" % b",".join([number] * columns) for columns in (1, 8, 40)}
    return {
        "more rows than allowed": _repeated(b"[1]", room),
        "one column": _repeated(rows[1], room, 100_000),
        "8 columns": _repeated(rows[8], room, 100_000),
        "40 columns": _repeated(rows[40], room, 100_000),
        "objects": _repeated(b"{%b}" % b",".join(b'"c%d":%b' % (at, number) for at in range(8)), room, 100_000),
        "the last row wrong": b"[%b[null]]" % ((rows[8] + b",") * (room // (len(rows[8]) + 1))),
        "the last row infinite": b"[%b[1e999]]" % ((rows[8] + b",") * (room // (len(rows[8]) + 1))),
        "one row": b"[%b]" % _repeated(b"1", room - 2),
        "objects of many names": _repeated(b"{%b}" % _numbered(500_000, b"1"), room),
        "texts as rows": _repeated(b'"a"', room, 100_000),
    }


def _repeated(item: bytes, room: int, most: int | None = None) -> bytes:
    count = (room - 2) // (len(item) + 1)
    return b"[%b]" % ((item + b",") * (count if most is None else min(count, most)))[:-1]


def _numbered(room: int, value: bytes) -> bytes:
    """Members of an object with keys of six digits."""
    member = b'"000000":%b,' % value
    numbers = np.arange(room // len(member), dtype=">u4").tobytes().hex().encode()
    members = np.tile(np.frombuffer(member, np.uint8), (room // len(member), 1))
    members[:, 1:7] = np.frombuffer(numbers, np.uint8).reshape(-1, 8)[:, 2:]
    return members.tobytes()[:-1]
