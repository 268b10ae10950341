"""Bodies of models, the service and its health."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from service.api.schemas.answers import ResponseBody


class ModelObject(ResponseBody):
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
    batches: str = Field(description="what the check at load found: whether a text's row depends on its batch")
    one_by_one: bool = Field(description="whether texts share no batch, because the answer would depend on it")
    dimensions: int | None
    max_tokens: int
    input_limits: dict[str, int] = Field(description="the most tokens of a query or document, where the model says so")
    labels: list[str]
    prompts: dict[str, str]
    notes: list[str] = Field(description="what was assumed at load because the model does not say it")
    base: str | None = Field(description="of a trained model: what it was trained on")
    versions: list[int] = Field(description="of a trained model: all there are")
    metrics: dict[str, float] = Field(description="of a trained model: what its training measured")
    signature: dict[str, Any] = Field(description="names, dtypes and shapes of what goes in and comes out")


class CohereModel(ResponseBody):
    name: str
    endpoints: list[str] = Field(description="what Cohere's clients may ask it for")
    finetuned: bool
    context_length: int


class OneModel(CohereModel, ModelObject):
    """A model with the names that Cohere's clients read."""


class ModelList(ResponseBody):
    object: Literal["list"]
    data: list[ModelObject]
    models: list[CohereModel] = Field(description="the same, as Cohere's clients read it")


class Info(ResponseBody):
    model_id: str
    model_sha: str
    model_dtype: str
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str
    models: list[ModelObject]


class VersionObject(ResponseBody):
    version: str


class Health(ResponseBody):
    status: Literal["ok", "unavailable"]
    reason: str | None
