"""Field types of requests: texts, token ids, readings and timestamps."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from models.sensors.base import LARGEST
from service.errors import InvalidRequest

T = TypeVar("T")
# Errors cut names that the caller chose to this number of characters.
_MAX_NAME = 80
# Of an answer with scores of labels: 800,000 scores take 200 MB until they are written.
_MAX_SCORE_CHARACTERS = 32 * 2**20
_SCORE_CHARACTERS = 40
# JSON Schema's word for what `check_text` checks. Lone surrogates never get this far: orjson refuses them.
TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1, "pattern": r"^[^\x00]*$"}
TEXT_OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"text": TEXT_SCHEMA},
    "required": ["text"],
    "additionalProperties": False,
}
IDS_SCHEMA: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
# `openapi` replaces it with the setting's value.
MAX_INPUTS = {"x-sonde-limit": "max_inputs"}


class SingleInput(list[T]):
    """The list of one input that came without a list around it."""


def name_by_index(param: str, *, alone: bool) -> Callable[[int], str]:
    """A function from an input's index to its parameter: `param[index]`, or `param` if alone."""
    return lambda index: param if alone else f"{param}[{index}]"


def name_inputs(param: str, inputs: object) -> Callable[[int], str]:
    """The same for the inputs of a validated field."""
    return name_by_index(param, alone=isinstance(inputs, SingleInput))


def to_integer(value: Any) -> Any:
    """5.0 as 5, because JSON has one kind of number; anything else as it is."""
    return int(value) if type(value) is float and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(to_integer)]
Probability = Annotated[float, Field(ge=0, le=1)]


def check_text(value: object, param: str) -> str:
    """The value, if it is a text that a tokeniser can read. Raises InvalidRequest."""
    if not isinstance(value, str):
        raise InvalidRequest.at(param, f"expected a string, got {kind_of(value)}")
    if not value:
        raise InvalidRequest.at(param, "expected a text, got an empty string")
    if "\x00" in value:
        raise InvalidRequest.at(param, "the text has a NUL character; leave it out")
    return value


def check_texts(value: object, param: str, *, objects: bool = False, first: int = 0) -> list[str]:
    """The value, if it is a list of at least one text. Raises InvalidRequest.

    With `objects`, a text may also be `{"text": …}`, as Jina's clients send it. `first` is the first one's index.
    """
    if not isinstance(value, list) or not value:
        raise InvalidRequest.at(param, f"expected a list of at least one string, got {kind_of(value)}")
    # Only a list with a wrong text pays for the check one by one, which names it.
    if set(map(type, value)) == {str} and all(value) and not any("\x00" in item for item in value):
        return value
    texts = [item["text"] if objects and _is_text_object(item) else item for item in value]
    return [check_text(text, f"{param}[{index}]") for index, text in enumerate(texts, start=first)]


def _is_text_object(item: object) -> bool:
    return isinstance(item, dict) and item.keys() == {"text"}


def check_ids(value: object, param: str) -> list[int]:
    """A list of at least one token id; the model itself checks that it knows them."""
    if not isinstance(value, list) or not value:
        raise InvalidRequest.at(param, f"expected a list of token ids, got {kind_of(value)}")
    # Only a list with another value pays for the check one by one, which names it.
    if set(map(type, value)) == {int} and min(value) >= 0:
        return value
    ids = [to_integer(item) for item in value]
    for index, item in enumerate(ids):
        if type(item) is not int or item < 0:
            raise InvalidRequest.at(f"{param}[{index}]", f"expected a token id, got {kind_of(item)}")
    return ids


def text_or_texts(param: str, least: int = 1) -> Any:
    """A field type: one text or a list of texts, where `least` is 0 also an empty one. The value is a list."""

    def check(value: object) -> list[str]:
        if not least and value in ("", []):
            return []
        return SingleInput([check_text(value, param)]) if isinstance(value, str) else check_texts(value, param)

    one = {**TEXT_SCHEMA, "minLength": least}
    schema = {"anyOf": [one, {"type": "array", "items": TEXT_SCHEMA, "minItems": least, **MAX_INPUTS}]}
    return Annotated[list[str], PlainValidator(check), WithJsonSchema(schema)]


def text_list(param: str, least: int = 1) -> Any:
    """A field type: a list of at least `least` texts."""

    def check(value: object) -> list[str]:
        texts = check_texts(value, param)
        if len(texts) < least:
            raise InvalidRequest.at(param, f"expected at least {least} texts, got {len(texts)}")
        return texts

    return Annotated[
        list[str],
        PlainValidator(check),
        WithJsonSchema({"type": "array", "items": TEXT_SCHEMA, "minItems": least, **MAX_INPUTS}),
    ]


def one_text(param: str, least: int = 1) -> Any:
    """A field type: one text; where `least` is 0, also an empty one."""

    def check(value: object) -> str:
        return "" if not least and value == "" else check_text(value, param)

    return Annotated[str, PlainValidator(check), WithJsonSchema({**TEXT_SCHEMA, "minLength": least})]


def check_texts_or_ids(value: object, param: str) -> list[str] | list[list[int]]:
    """OpenAI's `input`: one or several texts or lists of token ids. Texts may be objects `{"text": …}`."""
    if isinstance(value, str):
        return SingleInput([check_text(value, param)])
    if not isinstance(value, list) or not value:
        raise InvalidRequest.at(param, f"expected a string, a list of strings or token ids, got {kind_of(value)}")
    if isinstance(value[0], str | dict):
        return check_texts(value, param, objects=True)
    if isinstance(value[0], list):
        return [check_ids(ids, f"{param}[{index}]") for index, ids in enumerate(value)]
    return SingleInput([check_ids(value, param)])


_MANY = {"type": "array", "minItems": 1, **MAX_INPUTS}
TEXTS_OR_IDS_SCHEMAS: list[dict[str, Any]] = [
    TEXT_SCHEMA,
    {**_MANY, "items": {"anyOf": [TEXT_SCHEMA, TEXT_OBJECT]}},
    IDS_SCHEMA,
    {**_MANY, "items": IDS_SCHEMA},
]


def texts_or_ids(param: str) -> Any:
    """A field type: texts or token ids, by `check_texts_or_ids`. The value is a list."""

    def check(value: object) -> list[str] | list[list[int]]:
        return check_texts_or_ids(value, param)

    schema = {"anyOf": TEXTS_OR_IDS_SCHEMAS}
    return Annotated[list[str] | list[list[int]], PlainValidator(check), WithJsonSchema(schema)]


def shorten_name(name: str) -> str:
    """A name that the caller chose, short enough for an error message."""
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def require_count(count: int, most: int, param: str) -> None:
    """Refuse more inputs than one request may carry."""
    if count > most:
        raise InvalidRequest(
            f"{param} has {count} items, {most} are allowed: send them in several requests", param=param
        )


def require_few_scores(inputs: int, labels: Collection[str], top_k: int | None, param: str) -> None:
    """Refuse an answer that is too long: it names the labels for every input, so a short body may ask for gigabytes."""
    lengths = sorted((len(label) + _SCORE_CHARACTERS for label in labels), reverse=True)
    size = inputs * sum(lengths[:1] + lengths[:top_k])
    if size > _MAX_SCORE_CHARACTERS:
        message = f"{inputs} inputs and {len(labels)} labels make an answer of {size} characters"
        raise InvalidRequest.at(
            param, f"{message}, {_MAX_SCORE_CHARACTERS} are allowed: send fewer inputs, shorter labels, or top_k"
        )


def kind_of(value: object) -> str:
    """The JSON type of a value."""
    names: dict[type, str] = {
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        dict: "an object",
        type(None): "null",
    }
    return f"a list of {len(value)}" if isinstance(value, list) else names.get(type(value), type(value).__name__)


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
