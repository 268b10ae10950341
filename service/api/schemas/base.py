"""Base classes of all bodies, and the fields that several share."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from service.errors import InvalidRequest, MissingField

T = TypeVar("T")
MODEL = Field(description="a served model's name, name:version, or an alias", min_length=1, max_length=256)
OPTIONAL_MODEL = Field(
    None, description="a served model's name; without it, the first one that does this", min_length=1, max_length=256
)
TRUNCATE = Field(True, description="cut texts longer than the model reads (and say so); false refuses them with 422")
SIDE: Any = Field("right", description="the side that is cut off")


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


def _leave_open(schema: dict[str, Any]) -> None:
    """Allow more fields by saying nothing of them: generators of clients would make a map of the answer."""
    schema.pop("additionalProperties", None)


class ResponseBody(BaseModel):
    """An answer, which may have more fields. It only documents: routes build answers as bytes."""

    # Its validator would be built at import, and is never used.
    model_config = ConfigDict(extra="allow", json_schema_extra=_leave_open, defer_build=True)


class ListAnswer(ResponseBody, Generic[T]):
    object: Literal["list"]
    data: list[T]
    has_more: bool


class ListAnswerWithIds(ListAnswer[T]):
    """A page as OpenAI's clients read it."""

    first_id: str | None
    last_id: str | None


class ErrorBody(ResponseBody):
    message: str = Field(description="what was expected, what came, what to do")
    type: str
    param: str | None = Field(description="the parameter at fault, like input[3]")
    code: str


class ErrorEnvelope(ResponseBody):
    error: ErrorBody


class Usage(ResponseBody):
    prompt_tokens: int
    total_tokens: int
    readings: int | None = Field(None, description="rows of readings, where a sensor model answered")
