"""Bodies of Cohere's embeddings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from models.linalg import Quantization
from service.api.schemas.answers import ResponseBody
from service.api.schemas.images import IMAGE_PART, TEXT_PART, EncodedImage, check_part, image_or_images
from service.api.schemas.requests import MAX_INPUTS, MODEL, CompatibleBody, Count, kind_of, text_list, to_integer
from service.errors import InvalidRequest

EmbeddingType = Literal["float", "base64", Quantization]


def _check_inputs(value: object) -> list[str | EncodedImage]:
    """Cohere's v2 `inputs`, each with a content: text parts, which are joined by newlines, or one image."""
    if not isinstance(value, list) or not value:
        raise InvalidRequest.at("inputs", f"expected a list of objects with a content, got {kind_of(value)}")
    return [_check_content(item, f"inputs[{index}]") for index, item in enumerate(value)]


def _check_content(item: object, param: str) -> str | EncodedImage:
    parts = item.get("content") if isinstance(item, dict) else None
    if not isinstance(parts, list) or not parts:
        raise InvalidRequest.at(param, "expected an object with a content: a list of at least one part")
    read = [check_part(part, f"{param}.content[{index}]") for index, part in enumerate(parts)]
    texts = [part for part in read if isinstance(part, str)]
    if len(texts) == len(read):
        return "\n".join(texts)
    if len(read) > 1:
        raise InvalidRequest.at(f"{param}.content", "expected texts or one image, got several parts with an image")
    return read[0]


_CONTENT = {
    "type": "object",
    "properties": {
        "content": {
            "anyOf": [
                {"type": "array", "items": TEXT_PART, "minItems": 1},
                {"type": "array", "items": IMAGE_PART, "minItems": 1, "maxItems": 1},
            ]
        }
    },
    "required": ["content"],
}
Inputs = Annotated[
    list[Any],
    PlainValidator(_check_inputs),
    WithJsonSchema({"type": "array", "items": _CONTENT, "minItems": 1, **MAX_INPUTS}),
]


class CohereEmbedBody(CompatibleBody):
    _exactly_one = ("texts", "inputs", "images")

    model: str = MODEL
    texts: text_list("texts") | None = Field(None, description="the texts; or else inputs")  # type: ignore[valid-type]
    inputs: Inputs | None = Field(None, description="v2: objects with a content of text parts, or of one image")
    images: image_or_images("images") | None = Field(None, description="data URIs")  # type: ignore[valid-type]
    input_type: Literal["search_document", "search_query", "classification", "clustering", "image"] | None = Field(
        None, description="chooses one of the model's prompts"
    )
    embedding_types: list[EmbeddingType] | None = Field(
        None, min_length=1, description="kinds of vectors; without it, float"
    )
    output_dimension: Count | None = Field(None, description="number of leading dimensions to keep, renormalized")
    truncate: Literal["NONE", "START", "END"] = Field("END", description="the side to cut; NONE refuses long texts")
    max_tokens: Count | None = Field(None, description="cut texts after this number of tokens")
    priority: Annotated[int, Field(ge=0, le=999), BeforeValidator(to_integer)] | None = Field(
        None, description="accepted as Cohere does, and not used: callers are served fairly"
    )

    @property
    def source(self) -> tuple[str, list[str | EncodedImage]]:
        """The field with the texts or images, and those."""
        (name,) = self._given()
        return name, getattr(self, name)


class CohereEmbeddings(ResponseBody):
    id: str
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
    embeddings: list[list[float]] | dict[str, Any] = Field(
        description="by type; v1 without embedding_types: a list of vectors"
    )
    texts: list[str]
    meta: dict[str, Any]
