"""Bodies of tokens: `/v1/tokenize`, with Cohere's form of it, and `/v1/detokenize`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from service.api.schemas.answers import ResponseBody
from service.api.schemas.requests import IDS_SCHEMA, MODEL, CompatibleBody, check_ids, one_text, text_or_texts


class ExplainBody(CompatibleBody):
    _exactly_one = ("input", "text")

    model: str = MODEL
    input: text_or_texts("input") | None = Field(None, description="a text or a list of texts")  # type: ignore[valid-type]
    text: one_text("text") | None = Field(None, description="one text, as Cohere's clients send it")  # type: ignore[valid-type]
    add_special_tokens: bool = Field(True, description="of input: add the model's special tokens")
    prompt_name: str | None = Field(None, description="of input: one of the model's prompts to put before each text")


class DetokenizeBody(CompatibleBody):
    model: str = MODEL
    tokens: Annotated[list[int], PlainValidator(lambda ids: check_ids(ids, "tokens")), WithJsonSchema(IDS_SCHEMA)] = (
        Field(description="ids of the model's own vocabulary")
    )


class Explanation(ResponseBody):
    object: Literal["tokens"]
    index: int
    text: str = Field(description="the text after preprocessing, as the tokenizer sees it")
    tokens: list[str]
    ids: list[int]
    special: list[bool]
    truncated: bool = Field(description="whether a model request would cut it")


class ExplainAnswer(ResponseBody):
    object: Literal["list"]
    model: str
    max_tokens: int
    data: list[Explanation]


class CohereTokens(ResponseBody):
    tokens: list[int]
    token_strings: list[str]
    meta: dict[str, Any]


class CohereText(ResponseBody):
    text: str
    meta: dict[str, Any]
