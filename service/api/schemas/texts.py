"""Bodies of embeddings, classification and rerank."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from service.api.schemas.base import MODEL, TRUNCATE, RequestBody, ResponseBody, Usage
from service.api.schemas.fields import (
    MAX_INPUTS,
    TEXT_SCHEMA,
    Count,
    Probability,
    check_text,
    check_texts,
    one_text,
    shorten_name,
    text_or_texts,
    texts_or_ids,
    to_integer,
)
from service.errors import InvalidRequest


class EmbeddingsBody(RequestBody):
    model: str = MODEL
    input: texts_or_ids("input")  # type: ignore[valid-type]
    encoding_format: Literal["float", "base64"] = Field("float", description="base64 is little-endian float32")
    dimensions: Count | None = Field(
        None, description="number of leading dimensions to keep, renormalised; at most the model's"
    )
    user: str | None = Field(None, description="accepted as OpenAI does, and not used")
    prompt_name: str | None = Field(None, description="one of the model's prompts to put before each text")
    normalize: bool = Field(True, description="scale vectors to length 1")
    truncate: bool = TRUNCATE


class EmbeddingObject(ResponseBody):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    truncated: bool = Field(description="whether the text was cut to the model's length")


class EmbeddingsAnswer(ResponseBody):
    object: Literal["list"]
    model: str
    data: list[EmbeddingObject]
    usage: Usage


def _check_labels(value: object) -> dict[str, str | list[str]]:
    """A dictionary from name to description or examples.

    Reads `["a", …]`, `{"a": "description"}` and `{"a": ["example", …]}`.
    """
    if isinstance(value, list):
        names = check_texts(value, "labels")
        if len(set(names)) < len(names):
            raise InvalidRequest.at("labels", "a label is there twice")
        return {name: [] for name in names}
    if not isinstance(value, dict) or not value:
        raise InvalidRequest.at("labels", "expected a list of names, or an object from name to description or examples")
    return {
        check_text(name, "labels"): _check_label_texts(about, f"labels.{shorten_name(name)}")
        for name, about in value.items()
    }


def _check_label_texts(value: object, param: str) -> str | list[str]:
    return check_text(value, param) if isinstance(value, str) else check_texts(value, param)


_LABEL_TEXTS = {"anyOf": [TEXT_SCHEMA, {"type": "array", "items": TEXT_SCHEMA, "minItems": 1}]}
Labels = Annotated[
    dict[str, str | list[str]],
    PlainValidator(_check_labels),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": TEXT_SCHEMA, "minItems": 1, "uniqueItems": True, **MAX_INPUTS},
                {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": TEXT_SCHEMA,
                    "additionalProperties": _LABEL_TEXTS,
                },
            ]
        }
    ),
]


class ClassifyBody(RequestBody):
    model: str = MODEL
    input: text_or_texts("input")  # type: ignore[valid-type]
    labels: Labels | None = Field(None, description="for an encoder: names, or name → description or list of examples")
    multi_label: bool = Field(False, description="each label by itself instead of probabilities that sum to 1")
    top_k: Count | None = Field(None, description="number of best labels to answer with; without it, all")
    min_confidence: Probability | None = Field(None, description="answer label null where the best score is below")
    truncate: bool = TRUNCATE


class LabelScore(ResponseBody):
    label: str
    score: Probability = Field(description="the probability that the text is in scope and has the label")
    score_in_scope: Probability = Field(description="the label's probability if the text is in scope")


class ClassificationObject(ResponseBody):
    object: Literal["classification"]
    index: int
    label: str | None = Field(description="the best label; null where its score is below min_confidence")
    labels: list[LabelScore]
    out_of_scope: bool | None = Field(
        description="unlike the examples of every label; null with too few examples to tell"
    )
    p_value: float | None = Field(description="small when the text is stranger than nearly all examples")
    truncated: bool


class ClassifyAnswer(ResponseBody):
    object: Literal["list"]
    model: str
    data: list[ClassificationObject]
    label_set: dict[str, Any] | None = Field(
        description="of labels in the request: the number of texts, whether cached, the number cut"
    )
    usage: Usage


class Document(RequestBody):
    text: one_text("documents")  # type: ignore[valid-type]


def _check_documents(value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest.at("documents", "expected a list of strings, or of objects with a text")
    return [_check_document(item, f"documents[{index}]") for index, item in enumerate(value)]


def _check_document(item: object, param: str) -> str:
    if isinstance(item, dict):
        if set(item) != {"text"}:
            raise InvalidRequest.at(param, "expected an object with 'text' alone")
        item = item["text"]
    return check_text(item, param)


_DOCUMENT = {
    "anyOf": [
        TEXT_SCHEMA,
        {"type": "object", "properties": {"text": TEXT_SCHEMA}, "required": ["text"], "additionalProperties": False},
    ]
}
Documents = Annotated[
    list[str],
    PlainValidator(_check_documents),
    WithJsonSchema({"type": "array", "items": _DOCUMENT, "minItems": 1, **MAX_INPUTS}),
]


class RerankBody(RequestBody):
    model: str = MODEL
    query: one_text("query")  # type: ignore[valid-type]
    documents: Documents
    top_n: Count | None = Field(None, description="number of best documents to answer with; without it, all")
    max_tokens_per_doc: Count | None = Field(None, description="cut documents after this number of tokens")
    return_documents: bool = Field(False, description="send the texts back (Cohere's v1)")
    priority: Annotated[int, Field(ge=0, le=999), BeforeValidator(to_integer)] | None = Field(
        None, description="accepted as Cohere does, and not used: callers are served fairly"
    )


class RerankResult(ResponseBody):
    index: int
    relevance_score: float = Field(ge=0, le=1)


class RerankAnswer(ResponseBody):
    id: str
    results: list[RerankResult]
    meta: dict[str, Any]
