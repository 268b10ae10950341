"""Bodies of rerank: Cohere's, with what Jina, Voyage and vLLM add, and text-embeddings-inference's."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from service.api.schemas.answers import ResponseBody, Usage
from service.api.schemas.requests import (
    MAX_INPUTS,
    MODEL,
    OPTIONAL_MODEL,
    SIDE,
    TEXT_OBJECT,
    TEXT_SCHEMA,
    TRUNCATE,
    CompatibleBody,
    Count,
    check_text,
    check_texts,
    kind_of,
    one_text,
    text_list,
    to_integer,
)
from service.errors import InvalidRequest

# As a pattern, because generators of clients would make one constant of left and Left.
Direction = Annotated[
    Literal["left", "right", "Left", "Right"], WithJsonSchema({"type": "string", "pattern": "^([Ll]eft|[Rr]ight)$"})
]
Document = str | dict[str, Any]


def _check_documents(value: object) -> list[Document]:
    if not isinstance(value, list) or not value:
        expected = "expected a list of at least one string or object with a text"
        raise InvalidRequest.at("documents", f"{expected}, got {kind_of(value)}")
    if dict not in set(map(type, value)):
        return check_texts(value, "documents")  # type: ignore[return-value]  # lists are invariant
    return [
        item if isinstance(item, dict) else check_text(item, f"documents[{index}]") for index, item in enumerate(value)
    ]


_DOCUMENT = {"anyOf": [TEXT_SCHEMA, {**TEXT_OBJECT, "additionalProperties": True}]}
Documents = Annotated[
    list[Document],
    PlainValidator(_check_documents),
    WithJsonSchema({"type": "array", "items": _DOCUMENT, "minItems": 1, **MAX_INPUTS}),
]


class DocumentsBody(CompatibleBody):
    """What rerank routes with `documents` have in common."""

    _synonyms: ClassVar = {"top_k": "top_n", "truncation": "truncate"}

    query: one_text("query")  # type: ignore[valid-type]
    top_n: Count | None = Field(None, description="number of best documents to answer with; without it, all")
    top_k: Count | None = Field(None, description="Voyage's name of top_n")
    max_tokens_per_doc: Count | None = Field(None, description="cut documents after this number of tokens")
    truncate: bool = TRUNCATE
    truncation: bool | None = Field(None, description="Voyage's name of truncate")
    return_documents: bool = Field(False, description="send the documents back")
    rank_fields: list[str] | None = Field(
        None, description="of documents that are objects: the fields to read; without it, text", max_length=100
    )
    max_chunks_per_doc: Count | None = Field(None, description="accepted as Cohere's v1 does, and not used")
    priority: Annotated[int, Field(ge=0, le=999), BeforeValidator(to_integer)] | None = Field(
        None, description="accepted as Cohere does, and not used: callers are served fairly"
    )

    def document_texts(self, documents: list[Document]) -> list[str]:
        """What the model reads of each document. Raises InvalidRequest naming a document without text."""
        return [
            document if isinstance(document, str) else self._text_of(document, f"documents[{index}]")
            for index, document in enumerate(documents)
        ]

    def _text_of(self, document: dict[str, Any], param: str) -> str:
        # Each field once: one that is named a thousand times would make a text of gigabytes.
        names = dict.fromkeys(self.rank_fields or ())
        chosen = [document[name] for name in names if document.get(name) is not None]
        if not chosen:
            if "text" not in document:
                raise InvalidRequest.at(param, "expected a string, or an object with 'text' or one of rank_fields")
            chosen = [document["text"]] if isinstance(document["text"], str) else [check_text(document["text"], param)]
        return check_text("\n".join(map(_to_text, chosen)), param)


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


class RerankBody(DocumentsBody):
    model: str = MODEL
    documents: Documents


class TeiRerankBody(DocumentsBody):
    _exactly_one = ("texts", "documents")

    model: str | None = OPTIONAL_MODEL
    texts: text_list("texts") | None = Field(None, description="the texts to sort; or else documents")  # type: ignore[valid-type]
    documents: Documents | None = Field(None, description="as Jina's and vLLM's clients send them")
    truncation_direction: Direction = SIDE
    raw_scores: bool = Field(False, description="logits or cosines instead of numbers between 0 and 1")
    return_text: bool = Field(False, description="send the texts back")
    options: dict[str, Any] | None = Field(None, description="Hugging Face's; accepted and not used")


class RerankResult(ResponseBody):
    index: int
    relevance_score: float = Field(ge=0, le=1)
    document: Document | None = None


class RerankAnswer(ResponseBody):
    id: str
    results: list[RerankResult]
    meta: dict[str, Any]
    data: list[RerankResult] | None = Field(None, description="v1: the results as Voyage's clients read them")
    usage: Usage | None = Field(None, description="v1: as Jina's and Voyage's clients read it")


class JinaRerankAnswer(ResponseBody):
    id: str
    object: Literal["list"]
    model: str
    results: list[RerankResult]
    usage: Usage


class TeiRank(ResponseBody):
    index: int
    score: float
    text: str | None = None
