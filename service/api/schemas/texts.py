"""Bodies of embeddings and classification, of texts and of images."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, PlainValidator, WithJsonSchema

from models.linalg import Quantization
from service.api.schemas.answers import ResponseBody, Usage
from service.api.schemas.images import (
    IMAGE_OBJECT,
    EncodedImage,
    Messages,
    check_image,
    image_or_images,
    is_image_object,
)
from service.api.schemas.requests import (
    MAX_INPUTS,
    MODEL,
    OPTIONAL_MODEL,
    TEXT_OBJECT,
    TEXT_SCHEMA,
    TEXTS_OR_IDS_SCHEMAS,
    TRUNCATE,
    CompatibleBody,
    Count,
    Probability,
    check_text,
    check_texts,
    check_texts_or_ids,
    name_inputs,
    shorten_name,
    text_or_texts,
)
from service.api.schemas.tensors import TakesTensors
from service.errors import InvalidRequest
from service.serving.text_model import Purpose

JinaTask = Literal[
    "retrieval.query",
    "retrieval.passage",
    "retrieval",
    "text-matching",
    "classification",
    "clustering",
    "separation",
    "code.query",
    "code.passage",
    "code",
]
_PURPOSES: dict[str, Purpose] = {
    "query": "query",
    "document": "document",
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "code.query": "query",
    "code.passage": "document",
    "classification": "classification",
    "clustering": "clustering",
    "separation": "clustering",
}


def _check_input(value: object) -> list[Any]:
    """OpenAI's `input`, where texts may be objects with a text or an image, as Jina's clients send them."""
    if not isinstance(value, list) or dict not in map(type, value) or not any(map(is_image_object, value)):
        return check_texts_or_ids(value, "input")
    return [
        check_image(item["image"], f"input[{at}].image")
        if is_image_object(item)
        else check_texts([item], "input", objects=True, first=at)[0]
        for at, item in enumerate(value)
    ]


_MIXED = {"type": "array", "minItems": 1, "items": {"anyOf": [TEXT_OBJECT, IMAGE_OBJECT]}, **MAX_INPUTS}
EmbeddingsInput = Annotated[
    list[Any], PlainValidator(_check_input), WithJsonSchema({"anyOf": [*TEXTS_OR_IDS_SCHEMAS, _MIXED]})
]


class EmbeddingsBody(TakesTensors, CompatibleBody):
    _synonyms: ClassVar = {"normalized": "normalize", "truncation": "truncate", "output_dimension": "dimensions"}

    _exactly_one = ("input", "images", "messages", "inputs", "rows")

    model: str | None = OPTIONAL_MODEL
    input: EmbeddingsInput | None = Field(
        None, description="texts, token ids, or objects with images; or else images or messages"
    )
    images: image_or_images("images") | None = Field(  # type: ignore[valid-type]
        None, description="images as base64 or data URIs; a form may have them as files, and a body be one image"
    )
    modality: Literal["text", "image"] = Field(
        "text", description="Infinity's: image says that the strings of input are images, as base64 or data URIs"
    )
    messages: Messages | None = Field(None, description="vLLM's: one message with one text or image")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64 of little-endian float32, or of bytes"
    )
    dimensions: Count | None = Field(
        None, description="number of leading dimensions to keep, renormalized; at most the model's"
    )
    quantization: Quantization | None = Field(
        None, description="vectors of integers: int8 and uint8 one a dimension, binary and ubinary one for eight"
    )
    user: str | None = Field(None, description="accepted as OpenAI does, and not used")
    prompt_name: str | None = Field(None, description="one of the model's prompts to put before each text")
    normalize: bool = Field(True, description="scale vectors to length 1")
    truncate: bool = TRUNCATE
    task: JinaTask | None = Field(None, description="Jina's: chooses one of the model's prompts")
    normalized: bool | None = Field(None, description="Jina's name of normalize")
    embedding_type: Literal["float", "base64", Quantization] | None = Field(
        None, description="Jina's name of encoding_format and quantization"
    )
    late_chunking: Literal[False] = Field(False, description="Jina's; each text is embedded by itself")
    input_type: Literal["query", "document"] | None = Field(None, description="Voyage's name of task")
    truncation: bool | None = Field(None, description="Voyage's name of truncate")
    output_dimension: Count | None = Field(None, description="Voyage's name of dimensions")
    output_dtype: Literal["float", Quantization] | None = Field(None, description="Voyage's name of quantization")

    @property
    def mixed(self) -> list[str | EncodedImage] | None:
        """The images of the request, and the texts between them; None where it has texts or token ids alone."""
        if self.messages is not None or self.images is not None:
            return self.messages or self.images
        inputs: list[Any] = self.input or []
        if self.modality == "image":
            if not all(isinstance(item, str | EncodedImage) for item in inputs):
                raise InvalidRequest.at("modality", "image goes with images as base64 or data URIs, got token ids")
            return [
                item if isinstance(item, EncodedImage) else check_image(item, name_inputs("input", inputs)(at))
                for at, item in enumerate(inputs)
            ]
        return inputs if any(isinstance(item, EncodedImage) for item in inputs) else None

    @property
    def purpose(self) -> Purpose | None:
        """What the vectors are for, where the request says it."""
        return _PURPOSES.get(self.task or self.input_type or "")

    @property
    def integers(self) -> Quantization | None:
        """The kind of integers that the vectors shall be; None for floats."""
        named = self.quantization or self.output_dtype or self.embedding_type
        return named if named in get_args(Quantization) else None  # type: ignore[return-value]  # as just checked

    @property
    def is_base64(self) -> bool:
        """Whether the vectors shall be base64."""
        return "base64" in {self.encoding_format, self.embedding_type}


class EmbeddingObject(ResponseBody):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | list[int] | str
    truncated: bool = Field(description="whether the text was cut to the model's length")


class QuantizationObject(ResponseBody):
    dtype: Quantization
    loss: float = Field(description="mean of 1 - cosine between the vectors before and after")


class EmbeddingsAnswer(ResponseBody):
    object: Literal["list"]
    model: str
    data: list[EmbeddingObject]
    usage: Usage
    quantization: QuantizationObject | None = Field(None, description="of vectors of integers")


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


class ClassifyBody(TakesTensors):
    _exactly_one = ("input", "images", "inputs", "rows")

    model: str = MODEL
    input: text_or_texts("input") | None = Field(None, description="texts; or else images")  # type: ignore[valid-type]
    images: image_or_images("images") | None = Field(  # type: ignore[valid-type]
        None, description="images as base64 or data URIs; a form may have them as files, and a body be one image"
    )
    labels: Labels | None = Field(None, description="for an encoder: names, or name → description or list of examples")
    multi_label: bool = Field(False, description="each label by itself instead of probabilities that sum to 1")
    top_k: Count | None = Field(None, description="number of best labels to answer with; without it, all")
    min_confidence: Probability | None = Field(None, description="answer label null where the best score is below")
    truncate: bool = TRUNCATE

    @property
    def texts(self) -> list[str]:
        """The texts of a request without images."""
        return self.input or []


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
