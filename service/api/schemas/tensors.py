"""Fields of tensors: inputs of an exported program that does a task."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from pydantic import Field, PlainValidator, WithJsonSchema

from service.api.schemas.requests import MAX_INPUTS, RequestBody, kind_of
from service.errors import InvalidRequest

_ROW_SCHEMA = {"type": "array", "items": {"type": "number"}, "minItems": 1}
_TENSOR_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 256},
        "datatype": {"type": "string", "minLength": 1, "maxLength": 256},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "data": {"type": "array", "items": {}},  # generators want `items`
    },
    "required": ["name", "datatype", "shape", "data"],
}


def _check_tensors(value: object) -> list[Any]:
    """Tensors, which are read once the model is known."""
    if not isinstance(value, list) or not value:
        raise InvalidRequest.at("inputs", f"expected a list of at least one tensor, got {kind_of(value)}")
    for at, one in enumerate(value):
        if not isinstance(one, dict):
            expected = "expected a tensor with name, datatype, shape and data"
            raise InvalidRequest.at(f"inputs[{at}]", f"{expected}, got {kind_of(one)}")
    return value


def _check_rows(value: object) -> list[list[float]]:
    """Rows of one length. Raises InvalidRequest naming the first wrong value."""
    try:
        rows = msgspec.convert(value, list[list[float]])
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise InvalidRequest.at(f"rows{path.rstrip('`')}", message[:1].lower() + message[1:]) from error
    if not rows or not rows[0]:
        raise InvalidRequest.at("rows", "expected at least one row of numbers, got none")
    if wrong := next((at for at, row in enumerate(rows) if len(row) != len(rows[0])), None):
        raise InvalidRequest.at(
            f"rows[{wrong}]", f"expected {len(rows[0])} numbers as rows[0] has, got {len(rows[wrong])}"
        )
    return rows


Tensors = Annotated[
    list[Any], PlainValidator(_check_tensors), WithJsonSchema({"type": "array", "items": _TENSOR_SCHEMA, "minItems": 1})
]
Rows = Annotated[
    list[list[float]],
    PlainValidator(_check_rows),
    WithJsonSchema({"type": "array", "items": _ROW_SCHEMA, "minItems": 1, **MAX_INPUTS}),
]


class TakesTensors(RequestBody):
    """A body that may have inputs of an exported program."""

    inputs: Tensors | None = Field(
        None, description="of an exported program: tensors, as the Open Inference Protocol has them in JSON"
    )
    rows: Rows | None = Field(
        None, description="of an exported program with one float input [batch, columns]: its rows"
    )
