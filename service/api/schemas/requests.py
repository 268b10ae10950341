"""Base classes of all requests, and the types of their fields: texts and token ids."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from service.errors import InvalidRequest, MissingField

T = TypeVar("T")
MODEL = Field(description="a served model's name, name:version, or an alias", min_length=1, max_length=256)
OPTIONAL_MODEL = Field(
    None, description="a served model's name; without it, the first one that does this", min_length=1, max_length=256
)
TRUNCATE = Field(True, description="cut texts longer than the model reads (and say so); false refuses them with 422")
SIDE: Any = Field("right", description="the side that is cut off")
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


class RequestBody(BaseModel):
    """A request: unknown fields and wrong types are refused, and null is the same as an absent field."""

    model_config = ConfigDict(extra="forbid", strict=True)
    _allows_unknown_nulls: ClassVar[bool] = False
    _exactly_one: ClassVar[tuple[str, ...]] = ()  # fields of which a request has one

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, body: Any) -> Any:
        """Drop null, except from required fields, whose errors say what came, and from unknown ones."""
        if not isinstance(body, dict) or None not in body.values():
            return body
        return {name: value for name, value in body.items() if value is not None or not cls._may_be_null(name)}

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        if not self._exactly_one or len(given := self._given()) == 1:
            return self
        about = f"give exactly one of {', '.join(self._exactly_one)}"
        if not given:
            raise MissingField(f"{about}: got none of them", param=self._exactly_one[0])
        raise InvalidRequest(f"{about}: got {' and '.join(given)}", param=given[1])

    def _given(self) -> list[str]:
        """Those of `_exactly_one` that the request has."""
        return [name for name in self._exactly_one if getattr(self, name) is not None]

    @classmethod
    def _may_be_null(cls, name: str) -> bool:
        field = cls.model_fields.get(name)
        return cls._allows_unknown_nulls if field is None else not field.is_required()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The fields as JSON Schema, with null for each that may be absent."""
        schema = handler(core_schema)
        described = handler.resolve_ref_schema(schema)
        required = described.get("required", [])
        for name, field in described.get("properties", {}).items():
            if name not in required:
                described["properties"][name] = _or_null(field)
        if rules := cls._rules(described):
            # Below `then`, which validators read; generators of clients would make classes and maps of them.
            described.update({"if": {}, "then": rules})
        return schema

    @classmethod
    def _rules(cls, described: dict[str, Any]) -> dict[str, Any]:
        """Take what a body must be beside its fields out of its schema, as a schema of its own."""
        return {"oneOf": list(map(has_field, cls._exactly_one))} if cls._exactly_one else {}


class CompatibleBody(RequestBody):
    """A request of other APIs' clients, which also send null for fields that Sonde does not have.

    `_synonyms` has other APIs' names of a field and the field's own name.
    """

    _allows_unknown_nulls = True
    _synonyms: ClassVar[dict[str, str]] = {}

    @classmethod
    def _rules(cls, described: dict[str, Any]) -> dict[str, Any]:
        del described["additionalProperties"]
        known: dict[str, Any] = {name: {} for name in described["properties"]}
        return {**super()._rules(described), "properties": known, "additionalProperties": {"enum": [None]}}

    @model_validator(mode="after")
    def _take_synonyms(self) -> Self:
        for other in self._synonyms.keys() & self.model_fields_set:
            own, value = self._synonyms[other], getattr(self, other)
            if own in self.model_fields_set and getattr(self, own) != value:
                raise InvalidRequest.at(other, f"differs from {own}, which is the same: give one of them")
            setattr(self, own, value)
        return self


_NULL = {"type": "null"}
_ABOUT = ("title", "description", "default")


def has_field(name: str) -> dict[str, Any]:
    """A schema of objects with a field that is not null."""
    return {"required": [name], "properties": {name: {"not": _NULL}}}


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    """A field's schema that allows null, too."""
    about = {name: field[name] for name in _ABOUT if name in field}
    kinds = {name: value for name, value in field.items() if name not in _ABOUT}
    if not kinds:  # any value
        return about
    choices = kinds["anyOf"] if kinds.keys() == {"anyOf"} else [kinds]
    return {**about, "anyOf": choices if _NULL in choices else [*choices, _NULL]}


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
    """The value, if it is a text that a tokenizer can read. Raises InvalidRequest."""
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
