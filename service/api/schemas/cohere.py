"""Bodies of Cohere's embeddings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator

from models.linalg import Quantization
from service.api.schemas.base import MODEL, CompatibleBody, ResponseBody
from service.api.schemas.fields import MAX_INPUTS, TEXT_SCHEMA, Count, check_text, kind_of, text_list, to_integer
from service.errors import InvalidRequest

EmbeddingType = Literal["float", "base64", Quantization]


def _check_inputs(value: object) -> list[str]:
    """The texts of Cohere's v2 `inputs`, each with a content of text parts, which are joined by newlines."""
    if not isinstance(value, list) or not value:
        raise InvalidRequest.at("inputs", f"expected a list of objects with a content, got {kind_of(value)}")
    return [_check_content(item, f"inputs[{index}]") for index, item in enumerate(value)]


def _check_content(item: object, param: str) -> str:
    parts = item.get("content") if isinstance(item, dict) else None
    if not isinstance(parts, list) or not parts:
        raise InvalidRequest.at(param, "expected an object with a content: a list of at least one part")
    return "\n".join(_check_part(part, f"{param}.content[{index}]") for index, part in enumerate(parts))


def _check_part(part: object, param: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise InvalidRequest.at(param, 'expected {"type": "text", "text": …}; Sonde embeds texts alone')
    return check_text(part.get("text"), f"{param}.text")


_PART = {"type": "object", "properties": {"type": {"const": "text"}, "text": TEXT_SCHEMA}, "required": ["type", "text"]}
_CONTENT = {
    "type": "object",
    "properties": {"content": {"type": "array", "items": _PART, "minItems": 1}},
    "required": ["content"],
}
Inputs = Annotated[
    list[str],
    PlainValidator(_check_inputs),
    WithJsonSchema({"type": "array", "items": _CONTENT, "minItems": 1, **MAX_INPUTS}),
]


class CohereEmbedBody(CompatibleBody):
    _exactly_one = ("texts", "inputs")

    model: str = MODEL
    texts: text_list("texts") | None = Field(None, description="the texts; or else inputs")  # type: ignore[valid-type]
    inputs: Inputs | None = Field(None, description="v2: objects with a content of text parts")
    input_type: Literal["search_document", "search_query", "classification", "clustering"] | None = Field(
        None, description="chooses one of the model's prompts"
    )
    embedding_types: list[EmbeddingType] | None = Field(
        None, min_length=1, description="kinds of vectors; without it, float"
    )
    output_dimension: Count | None = Field(None, description="number of leading dimensions to keep, renormalised")
    truncate: Literal["NONE", "START", "END"] = Field("END", description="the side to cut; NONE refuses long texts")
    max_tokens: Count | None = Field(None, description="cut texts after this number of tokens")
    priority: Annotated[int, Field(ge=0, le=999), BeforeValidator(to_integer)] | None = Field(
        None, description="accepted as Cohere does, and not used: callers are served fairly"
    )

    @model_validator(mode="after")
    def _require_one_source(self) -> CohereEmbedBody:
        if (self.texts is None) == (self.inputs is None):
            got = "none of them" if self.texts is None else "both"
            raise InvalidRequest(f"give exactly one of texts, inputs: got {got}", param="texts")
        return self

    @property
    def source(self) -> tuple[str, list[str]]:
        """The field with the texts, and the texts."""
        return ("inputs", self.inputs) if self.inputs is not None else ("texts", self.texts or [])


class CohereEmbeddings(ResponseBody):
    id: str
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
    embeddings: list[list[float]] | dict[str, Any] = Field(
        description="by type; v1 without embedding_types: a list of vectors"
    )
    texts: list[str]
    meta: dict[str, Any]
