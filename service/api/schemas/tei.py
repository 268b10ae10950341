"""text-embeddings-inference's contract, with our `model` field added, and Hugging Face's inference API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from service.api.schemas.answers import ResponseBody
from service.api.schemas.requests import (
    IDS_SCHEMA,
    MAX_INPUTS,
    OPTIONAL_MODEL,
    SIDE,
    TEXT_SCHEMA,
    TRUNCATE,
    CompatibleBody,
    Count,
    SingleInput,
    check_ids,
    check_text,
    check_texts,
    one_text,
    require_count,
    text_list,
    text_or_texts,
    texts_or_ids,
)
from service.api.schemas.rerank import Direction
from service.errors import InvalidRequest


class TeiBody(CompatibleBody):
    """What all bodies of text-embeddings-inference have in common."""

    model: str | None = OPTIONAL_MODEL
    options: dict[str, Any] | None = Field(None, description="Hugging Face's; accepted and not used")


class EmbedBody(TeiBody):
    inputs: texts_or_ids("inputs")  # type: ignore[valid-type]
    normalize: bool = Field(True, description="scale vectors to length 1")
    truncate: bool = TRUNCATE
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


class PredictParameters(CompatibleBody):
    top_k: Count | None = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None


class PredictBody(TeiBody):
    inputs: Sequences
    truncate: bool = TRUNCATE
    truncation_direction: Direction = SIDE
    raw_scores: bool = Field(False, description="logits instead of probabilities")
    parameters: PredictParameters | None = Field(None, description="as huggingface_hub's InferenceClient sends them")


class ZeroShotParameters(CompatibleBody):
    candidate_labels: text_or_texts("parameters.candidate_labels")  # type: ignore[valid-type]
    multi_label: bool = Field(False, description="each label by itself instead of scores that sum to 1")
    hypothesis_template: str | None = Field(
        None, description="a description of each label, with {} for its name", max_length=1000
    )

    def labels(self, max_labels: int) -> dict[str, str | list[str]]:
        """Each label's description, or none.

        Raises InvalidRequest for too many labels, for one that is there twice, and for a template that repeats them.
        """
        names: list[str] = self.candidate_labels
        if isinstance(names, SingleInput):  # Hugging Face takes commas, too
            require_count(1 + names[0].count(","), max_labels, "parameters.candidate_labels")
            names = [name.strip() for name in names[0].split(",") if name.strip()]
        require_count(len(names), max_labels, "parameters.candidate_labels")
        if len(set(names)) < len(names) or not names:
            raise InvalidRequest.at("parameters.candidate_labels", "expected different labels, at least one")
        template = self.hypothesis_template
        if template and template.count("{}") > 1:  # each one would copy every label
            raise InvalidRequest.at("parameters.hypothesis_template", "expected {} at most once")
        return {name: template.replace("{}", name) if template else [] for name in names}


class ZeroShotBody(TeiBody):
    inputs: text_or_texts("inputs")  # type: ignore[valid-type]
    parameters: ZeroShotParameters
    truncate: bool = TRUNCATE


class SimilarityInputs(CompatibleBody):
    source_sentence: one_text("inputs.source_sentence")  # type: ignore[valid-type]
    sentences: text_list("inputs.sentences")  # type: ignore[valid-type]


class SimilarityParameters(CompatibleBody):
    truncate: bool = TRUNCATE
    truncation_direction: Direction = SIDE
    prompt_name: str | None = None


class SimilarityBody(TeiBody):
    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None


class TokenizeBody(TeiBody):
    inputs: text_or_texts("inputs")  # type: ignore[valid-type]
    add_special_tokens: bool = True
    prompt_name: str | None = None


def _check_id_lists(value: object) -> list[list[int]]:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [check_ids(ids, f"ids[{index}]") for index, ids in enumerate(value)]
    return [check_ids(value, "ids")]


class DecodeBody(TeiBody):
    ids: Annotated[
        list[list[int]],
        PlainValidator(_check_id_lists),
        WithJsonSchema({"anyOf": [IDS_SCHEMA, {"type": "array", "minItems": 1, "items": IDS_SCHEMA, **MAX_INPUTS}]}),
    ]
    skip_special_tokens: bool = True


class TeiToken(ResponseBody):
    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TeiScore(ResponseBody):
    label: str
    score: float
