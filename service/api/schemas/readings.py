"""Field types of readings and timestamps."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from models.sensors.model import LARGEST
from service.api.schemas.requests import kind_of
from service.errors import InvalidRequest

LATEST_TIME_S = 253_402_300_799.0  # the end of the year 9999
_NUMBER_SCHEMA = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
_VALUE_SCHEMA = {"anyOf": [_NUMBER_SCHEMA, {"type": "null"}]}
_ROW_SCHEMA = {"type": "array", "items": _VALUE_SCHEMA, "minItems": 1}
_RECORD_SCHEMA = {"type": "object", "additionalProperties": _VALUE_SCHEMA, "minProperties": 1}
_UNIX_SCHEMA = {"type": "number", "maximum": LATEST_TIME_S, "minimum": 0}
_TIME_SCHEMA = {"anyOf": [{"type": "string", "format": "date-time"}, _UNIX_SCHEMA]}


def _list_of(param: str, schema: dict[str, Any], *, optional: bool = True) -> Any:
    """A field type: a list of at least one item, or null.

    The items are checked once the model is known.
    """

    def check(value: object) -> list[Any] | None:
        if value is None and optional:
            return None
        if not isinstance(value, list) or not value:
            raise InvalidRequest.at(param, f"expected a list of at least one item, got {kind_of(value)}")
        return value

    many = {"type": "array", "items": schema, "minItems": 1, "x-sonde-limit": "max_readings"}
    described = {"anyOf": [many, {"type": "null"}]} if optional else many
    return Annotated[list[Any] | None, PlainValidator(check), WithJsonSchema(described)]


RecordList = _list_of("records", {"anyOf": [_RECORD_SCHEMA, _ROW_SCHEMA]})
SeriesRows = _list_of("series", {"anyOf": [_ROW_SCHEMA, _RECORD_SCHEMA]})
RequiredSeries = _list_of("series", {"anyOf": [_ROW_SCHEMA, _RECORD_SCHEMA]}, optional=False)
Timestamps = _list_of("timestamps", _TIME_SCHEMA)
