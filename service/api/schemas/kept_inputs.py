"""Bodies of texts and images that are kept for review."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.api.schemas.answers import ListAnswer, ResponseBody
from service.api.schemas.texts import LabelScore


class KeptInputObject(ResponseBody):
    id: str
    object: Literal["kept_input"]
    created_at: int
    model: str = Field(description="the model that answered, with its version")
    text: str | None = Field(description="null for an image")
    image: str | None = Field(description="a data URI of at most 100,000 characters; null for a text")
    labels: list[LabelScore] = Field(description="the labels that it gave, best first; at most 20")
    owner: str = Field(description="the API key that sent it")


class KeptInputList(ListAnswer[KeptInputObject]):
    kept_per_key: int = Field(description="the setting `--keep-inputs`; 0 keeps none")
    skipped: int = Field(description="texts of all keys that were too long to be kept")
