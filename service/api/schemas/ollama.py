"""Bodies of Ollama's embeddings and models."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field, model_validator

from service.api.schemas.answers import ResponseBody
from service.api.schemas.requests import TRUNCATE, CompatibleBody, Count, has_field, one_text, text_or_texts
from service.errors import MissingField

_MODEL = Field(description="a served model's name; :latest at its end is left out", min_length=1, max_length=256)


class OllamaBody(CompatibleBody):
    """What the bodies that compute have in common."""

    model: str = _MODEL
    options: dict[str, Any] | None = Field(None, description="accepted as Ollama does, and not used")
    keep_alive: Any = Field(None, description="accepted and not used: models stay loaded")


class OllamaEmbedBody(OllamaBody):
    input: text_or_texts("input", least=0) = Field(default_factory=list, description="without any text, no vectors")  # type: ignore[valid-type]
    truncate: bool = TRUNCATE
    dimensions: Count | None = Field(None, description="number of leading dimensions to keep, renormalized")


class OllamaEmbeddingsBody(OllamaBody):
    prompt: one_text("prompt", least=0) = Field("", description="without a text, an empty vector")  # type: ignore[valid-type]


class OllamaShowBody(CompatibleBody):
    model: str | None = Field(None, description="a served model's name", min_length=1, max_length=256)
    name: str | None = Field(None, description="older name of model", min_length=1, max_length=256)
    verbose: bool = Field(False, description="accepted and not used")
    system: str | None = Field(None, description="accepted and not used")
    options: dict[str, Any] | None = Field(None, description="accepted and not used")

    @model_validator(mode="after")
    def _require_name(self) -> OllamaShowBody:
        if self.model is None and self.name is None:
            raise MissingField("give model, or its older name `name`: got none of them", param="model")
        return self

    @classmethod
    def _rules(cls, described: dict[str, Any]) -> dict[str, Any]:
        return {**super()._rules(described), "anyOf": [has_field("model"), has_field("name")]}


class OllamaError(ResponseBody):
    error: str


class OllamaVectors(ResponseBody):
    model: str
    embeddings: list[list[float]]
    total_duration: int = Field(description="nanoseconds")
    load_duration: int
    prompt_eval_count: int = Field(description="tokens")


class OllamaVector(ResponseBody):
    embedding: list[float]


class OllamaModel(ResponseBody):
    name: str
    model: str
    modified_at: datetime
    digest: str
    details: dict[str, Any]


class OllamaModels(ResponseBody):
    models: list[OllamaModel]


class OllamaDescription(ResponseBody):
    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: datetime


class OllamaVersion(ResponseBody):
    version: str
