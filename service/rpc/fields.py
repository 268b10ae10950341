"""The number of fields in a message, counted in its bytes before objects are made of them.

A field takes two bytes in a message and a hundred and more in memory.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from service.errors import BodyTooLarge, MalformedBody
from service.inference_messages import message

# Wire types of the encoding, https://protobuf.dev/programming-guides/encoding/, and the bytes of fixed ones.
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_LONGEST_VARINT = 10
_SHAPE = "shape"


def require_few_fields(content: bytes, descriptor: Any, most: int) -> None:
    """Raise BodyTooLarge for a message with more than `most` fields, those of messages within it included.

    The numbers of a shape are fields as well. Values take the memory of their dtype and are not counted.

    Raises MalformedBody where the bytes end within a field, and for groups, which the protocol has none of.
    """
    waiting = [(0, len(content), descriptor)]
    count = 0
    while waiting:
        at, end, kind = waiting.pop()
        while at < end:
            tag, at = _read_varint(content, at, end)
            begin, at = _skip(content, at, end, tag & 7)
            field = kind.fields_by_number.get(tag >> 3) if tag & 7 == _BYTES else None
            count += at - begin if field is not None and field.name == _SHAPE else 1
            if count > most:
                raise BodyTooLarge(f"the message has more than {most} fields: send fewer inputs a request")
            if field is not None and field.message_type is not None:
                waiting.append((begin, at, field.message_type))


def _skip(content: bytes, at: int, end: int, wire_type: int) -> tuple[int, int]:
    """Where a field's value begins and ends. Raises MalformedBody."""
    if wire_type == _VARINT:
        return at, _read_varint(content, at, end)[1]
    if wire_type == _BYTES:
        size, at = _read_varint(content, at, end)
    elif wire_type in _FIXED:
        size = _FIXED[wire_type]
    else:
        raise MalformedBody(f"expected a message of the protocol, got a field of wire type {wire_type}")
    if at + size > end:
        raise MalformedBody("expected a whole message, got one that ends within a field")
    return at, at + size


def _read_varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """A number in the base of 128, and where it ends. Raises MalformedBody."""
    number = 0
    for place, byte in enumerate(content[at : min(at + _LONGEST_VARINT, end)]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise MalformedBody("expected a whole message, got one that ends within a number")


def parse(name: str, content: bytes, most_fields: int) -> Any:
    """The message `name` in bytes. Raises BodyTooLarge for more than `most_fields` fields, and MalformedBody."""
    kind = message(name)
    if len(content) > most_fields:  # each field takes at least a byte
        require_few_fields(content, kind.DESCRIPTOR, most_fields)
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise MalformedBody(f"expected the message {name}, got other bytes: {error}") from error
