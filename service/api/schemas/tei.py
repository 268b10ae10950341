"""text-embeddings-inference's contract, with our `model` field added, and `/v1/tokenize`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from service.api.schemas.base import MODEL, SIDE, TRUNCATE, RequestBody, ResponseBody
from service.api.schemas.fields import (
    IDS_SCHEMA,
    MAX_INPUTS,
    TEXT_SCHEMA,
    Count,
    check_ids,
    check_text,
    check_texts,
    one_text,
    text_list,
    text_or_texts,
    texts_or_ids,
)
from service.errors import InvalidRequest

Direction = Literal["left", "right", "Left", "Right"]
_OPTIONAL_MODEL = Field(
    None, description="a served model's name; without it, the first one that does this", min_length=1, max_length=256
)


class EmbedBody(RequestBody):
    inputs: texts_or_ids("inputs")  # type: ignore[valid-type]
    model: str | None = _OPTIONAL_MODEL
    normalize: bool = Field(True, description="scale vectors to length 1")
    truncate: bool | None = TRUNCATE
    truncation_direction: Direction = SIDE
    prompt_name: str | None = None
    dimensions: Count | None = None


def _check_sequences(value: object) -> list[str] | list[tuple[str, str]]:
    """TEI's `inputs`: a text; `[a]` or `[a, b]`, one text or pair; or a list of such lists."""
    if isinstance(value, str):
        return [check_text(value, "inputs")]
    if isinstance(value, list) and value and all(isinstance(item, list) for item in value):
        read = [_check_sequence(item, f"inputs[{index}]") for index, item in enumerate(value)]
        if len({type(item) for item in read}) == 1:
            return read  # type: ignore[return-value]  # all of one type, as just checked
        raise InvalidRequest.at("inputs", "expected single texts or pairs, got both")
    return [_check_sequence(value, "inputs")]  # type: ignore[return-value]


def _check_sequence(value: object, param: str) -> str | tuple[str, str]:
    texts = check_texts(value, param)
    if len(texts) > 2:
        remedy = "for several, give each a list of its own"
        raise InvalidRequest.at(param, f"expected one text or a pair, got {len(texts)}; {remedy}")
    return (texts[0], texts[1]) if len(texts) == 2 else texts[0]


_SEQUENCE: dict[str, Any] = {"type": "array", "items": TEXT_SCHEMA, "minItems": 1, "maxItems": 2}
_SINGLES = {"type": "array", "items": {**_SEQUENCE, "maxItems": 1}, "minItems": 1, **MAX_INPUTS}
_PAIRS = {"type": "array", "items": {**_SEQUENCE, "minItems": 2}, "minItems": 1, **MAX_INPUTS}
Sequences = Annotated[
    list[str] | list[tuple[str, str]],
    PlainValidator(_check_sequences),
    WithJsonSchema({"anyOf": [TEXT_SCHEMA, _SEQUENCE, _SINGLES, _PAIRS]}),
]


class PredictParameters(RequestBody):
    top_k: Count | None = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None


class PredictBody(RequestBody):
    inputs: Sequences
    model: str | None = _OPTIONAL_MODEL
    truncate: bool | None = TRUNCATE
    raw_scores: bool = Field(False, description="logits instead of probabilities")
    parameters: PredictParameters | None = Field(None, description="as huggingface_hub's InferenceClient sends them")


class TeiRerankBody(RequestBody):
    query: one_text("query")  # type: ignore[valid-type]
    texts: text_list("texts")  # type: ignore[valid-type]
    model: str | None = _OPTIONAL_MODEL
    truncate: bool | None = TRUNCATE
    raw_scores: bool = Field(False, description="logits or cosines instead of numbers between 0 and 1")
    return_text: bool = Field(False, description="send the texts back")


class SimilarityInputs(RequestBody):
    source_sentence: one_text("inputs.source_sentence")  # type: ignore[valid-type]
    sentences: text_list("inputs.sentences")  # type: ignore[valid-type]


class SimilarityParameters(RequestBody):
    truncate: bool | None = TRUNCATE
    truncation_direction: Direction = SIDE
    prompt_name: str | None = None


class SimilarityBody(RequestBody):
    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None
    model: str | None = _OPTIONAL_MODEL


class TokenizeBody(RequestBody):
    inputs: text_or_texts("inputs")  # type: ignore[valid-type]
    model: str | None = _OPTIONAL_MODEL
    add_special_tokens: bool = True
    prompt_name: str | None = None


class ExplainBody(RequestBody):
    model: str = MODEL
    input: text_or_texts("input")  # type: ignore[valid-type]
    add_special_tokens: bool = True
    prompt_name: str | None = None


def _check_id_lists(value: object) -> list[list[int]]:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [check_ids(ids, f"ids[{index}]") for index, ids in enumerate(value)]
    return [check_ids(value, "ids")]


class DecodeBody(RequestBody):
    ids: Annotated[
        list[list[int]],
        PlainValidator(_check_id_lists),
        WithJsonSchema({"anyOf": [IDS_SCHEMA, {"type": "array", "minItems": 1, "items": IDS_SCHEMA, **MAX_INPUTS}]}),
    ]
    model: str | None = _OPTIONAL_MODEL
    skip_special_tokens: bool = True


class TeiToken(ResponseBody):
    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Explanation(ResponseBody):
    object: Literal["tokens"]
    index: int
    text: str = Field(description="the text with its prompt, as the tokeniser reads it")
    tokens: list[str]
    ids: list[int]
    special: list[bool]
    truncated: bool = Field(description="whether a model request would cut it")


class ExplainAnswer(ResponseBody):
    object: Literal["list"]
    model: str
    max_tokens: int
    data: list[Explanation]


class TeiScore(ResponseBody):
    label: str
    score: float


class TeiRank(ResponseBody):
    index: int
    score: float
