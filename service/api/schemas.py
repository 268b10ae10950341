"""The HTTP contract as pydantic classes: what comes in is validated by them, what goes out is documented by them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from models.registry.names import NAME_PATTERN
from service.api.inputs import (
    MAX_INPUTS,
    TEXT_SCHEMA,
    Count,
    brief,
    check_text,
    check_texts,
    one_text,
    text_or_texts,
    texts_or_ids,
    whole,
)
from service.errors import InvalidRequest

MODEL = Field(description="a served model's name, name:version, or an alias", min_length=1, max_length=256)
TRUNCATE = Field(True, description="cut texts longer than the model reads (and say so); false refuses them with 422")
SIDE: Any = Field("right", description="the side that is cut off")


class Body(BaseModel):
    """Requests: unknown fields and wrong types are refused, never guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """Answers, for the document alone: they are built as bytes."""

    model_config = ConfigDict(extra="allow")


# --- errors -------------------------------------------------------------------------------------------------------------


class ErrorBody(Answer):
    message: str = Field(description="what was expected, what came, what to do")
    type: str
    param: str | None = Field(description="the parameter at fault, like input[3]")
    code: str


class ErrorEnvelope(Answer):
    error: ErrorBody


# --- OpenAI -------------------------------------------------------------------------------------------------------------


class EmbeddingsBody(Body):
    model: str = MODEL
    input: texts_or_ids("input")  # type: ignore[valid-type]
    encoding_format: Literal["float", "base64"] = Field("float", description="base64 is little-endian float32")
    dimensions: Count | None = Field(None, description="keep so many leading dimensions, renormalised; up to the model's own")
    user: str | None = Field(None, description="accepted as OpenAI does, and not used")
    prompt_name: str | None = Field(None, description="one of the model's prompts to put before each text")
    normalize: bool = Field(True, description="scale vectors to length 1")
    truncate: bool = TRUNCATE


class Usage(Answer):
    prompt_tokens: int
    total_tokens: int
    readings: int | None = Field(None, description="rows of numbers, where the model reads numbers")


class Embedding(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    truncated: bool = Field(description="whether the text was cut to the model's length")


class EmbeddingsAnswer(Answer):
    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: Usage


class ModelObject(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    version: str
    task: str
    origin: str
    architecture: str
    device: str
    dtype: str
    reason: str = Field(description="why this device and this dtype")
    forward: str = Field(description="which forward pass runs, and why that one")
    dimensions: int | None
    max_tokens: int
    labels: list[str]
    prompts: dict[str, str]
    notes: list[str] = Field(description="what was assumed at load because the model does not say it")
    base: str | None = Field(description="of a trained model: what it was trained on")
    versions: list[int] = Field(description="of a trained model: all there are")
    metrics: dict[str, float] = Field(description="of a trained model: what its training measured")
    signature: dict[str, Any] = Field(description="names, dtypes and shapes of what goes in and comes out")


class ModelList(Answer):
    object: Literal["list"]
    data: list[ModelObject]


class ModelDeleted(Answer):
    id: str
    object: Literal["model"]
    deleted: bool


# --- the registry -------------------------------------------------------------------------------------------------------

WHY = Field("", description="for the ledger", max_length=1000)


class PromoteBody(Body):
    version: Count
    why: str = WHY
    expected_generation: Annotated[int, Field(ge=0), BeforeValidator(whole)] | None = Field(
        None, description="refuse with 409 when the generation is another by now"
    )


class MoveBody(Body):
    why: str = WHY


class AliasBody(Body):
    target: str = Field(description="a trained model's name, or name:vN", pattern=f"^{NAME_PATTERN}$")


class InService(Answer):
    object: Literal["model.pointer"]
    model: str
    version: int | None = Field(description="the version in service; null when none is")
    generation: int = Field(description="how often that has changed")
    previous: int | None = Field(description="what a rollback leads to")


class Version(Answer):
    id: str = Field(description="a name that every route takes")
    object: Literal["model.version"]
    version: int
    in_service: bool
    created: int | None
    task: str | None
    base: str | None
    base_version: str | None
    encoder: Literal["base", "own", "none"] | None = Field(description="whether it has an encoder of its own, or reads numbers")
    labels: list[str]
    metrics: dict[str, float]
    job: str | None
    error: str | None = Field(description="why it cannot be read, when it cannot")


class VersionList(Answer):
    object: Literal["list"]
    model: str
    generation: int
    data: list[Version]
    has_more: bool


class LedgerEntry(Answer):
    at: int = Field(description="Unix seconds")
    action: Literal["publish", "promote", "rollback", "withdraw", "delete"]
    version: int | None
    by: str
    why: str


class Ledger(Answer):
    object: Literal["list"]
    model: str
    data: list[LedgerEntry]
    has_more: bool


class Alias(Answer):
    id: str
    object: Literal["alias"]
    target: str


class AliasList(Answer):
    object: Literal["list"]
    data: list[Alias]
    has_more: bool


class AliasDeleted(Answer):
    id: str
    object: Literal["alias"]
    deleted: bool


# --- classification ----------------------------------------------------------------------------------------------------


def _check_labels(value: object) -> dict[str, str | list[str]]:
    """`["a", …]`, `{"a": "description"}` or `{"a": ["example", …]}` → name → description or examples."""
    if isinstance(value, list):
        names = check_texts(value, "labels")
        if len(set(names)) < len(names):
            raise InvalidRequest("labels: a label is there twice", param="labels")
        return {name: [] for name in names}
    if not isinstance(value, dict) or not value:
        raise InvalidRequest("labels: expected a list of names, or an object from name to description or examples", param="labels")
    return {check_text(name, "labels"): _check_about(about, f"labels.{brief(name)}") for name, about in value.items()}


def _check_about(value: object, param: str) -> str | list[str]:
    return check_text(value, param) if isinstance(value, str) else check_texts(value, param)


_ABOUT = {"anyOf": [TEXT_SCHEMA, {"type": "array", "items": TEXT_SCHEMA, "minItems": 1}]}
Labels = Annotated[
    dict[str, str | list[str]],
    PlainValidator(_check_labels),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": TEXT_SCHEMA, "minItems": 1, "uniqueItems": True, **MAX_INPUTS},
                {"type": "object", "minProperties": 1, "propertyNames": TEXT_SCHEMA, "additionalProperties": _ABOUT},
            ]
        }
    ),
]


class ClassifyBody(Body):
    model: str = MODEL
    input: text_or_texts("input")  # type: ignore[valid-type]
    labels: Labels | None = Field(None, description="for an encoder: names, or name → description or list of examples")
    multi_label: bool = Field(False, description="each label by itself instead of probabilities that sum to 1")
    top_k: Count | None = Field(None, description="so many best labels; all without it")
    truncate: bool = TRUNCATE


class LabelScore(Answer):
    label: str
    score: float = Field(ge=0, le=1, description="a probability")


class Classification(Answer):
    object: Literal["classification"]
    index: int
    label: str = Field(description="the best label")
    labels: list[LabelScore]
    out_of_scope: bool | None = Field(description="like none of the labels' examples; null where too few examples are known to tell")
    p_value: float | None = Field(description="small when the text is stranger than nearly all examples are to each other")
    truncated: bool


class ClassifyAnswer(Answer):
    object: Literal["list"]
    model: str
    data: list[Classification]
    label_set: dict[str, Any] | None = Field(description="of labels sent along: how many texts, whether cached, how many cut")
    usage: Usage


# --- rerank -------------------------------------------------------------------------------------------------------------


class Document(Body):
    text: one_text("documents")  # type: ignore[valid-type]


def _check_documents(value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest("documents: expected a list of strings, or of objects with a text", param="documents")
    return [check_text(_document_text(item, index), f"documents[{index}]") for index, item in enumerate(value)]


def _document_text(item: object, index: int) -> object:
    if isinstance(item, dict):
        if set(item) != {"text"}:
            raise InvalidRequest(f"documents[{index}]: expected an object with 'text' alone", param=f"documents[{index}]")
        return item["text"]
    return item


_DOCUMENT = {
    "anyOf": [TEXT_SCHEMA, {"type": "object", "properties": {"text": TEXT_SCHEMA}, "required": ["text"], "additionalProperties": False}]
}
Documents = Annotated[
    list[str], PlainValidator(_check_documents), WithJsonSchema({"type": "array", "items": _DOCUMENT, "minItems": 1, **MAX_INPUTS})
]


class RerankBody(Body):
    model: str = MODEL
    query: one_text("query")  # type: ignore[valid-type]
    documents: Documents
    top_n: Count | None = Field(None, description="so many best documents; all without it")
    max_tokens_per_doc: Count | None = Field(None, description="cut documents after so many tokens")
    return_documents: bool = Field(False, description="send the texts back (Cohere's v1)")
    priority: Annotated[int, Field(ge=0, le=999), BeforeValidator(whole)] | None = Field(
        None, description="accepted as Cohere does, and not used: callers are served fairly"
    )


class RerankResult(Answer):
    index: int
    relevance_score: float = Field(ge=0, le=1)


class RerankAnswer(Answer):
    id: str
    results: list[RerankResult]
    meta: dict[str, Any]


# --- the service itself -------------------------------------------------------------------------------------------------


class Info(Answer):
    model_id: str
    model_sha: str
    model_dtype: str
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str
    models: list[ModelObject]


class Health(Answer):
    status: Literal["ok", "unavailable"]
    reason: str | None
