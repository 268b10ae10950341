"""Base classes of all bodies, and the fields that several share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MODEL = Field(description="a served model's name, name:version, or an alias", min_length=1, max_length=256)
TRUNCATE = Field(True, description="cut texts longer than the model reads (and say so); false refuses them with 422")
SIDE: Any = Field("right", description="the side that is cut off")


class RequestBody(BaseModel):
    """A request: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseBody(BaseModel):
    """An answer. It only documents: routes build answers as bytes."""

    model_config = ConfigDict(extra="allow")


class ErrorBody(ResponseBody):
    message: str = Field(description="what was expected, what came, what to do")
    type: str
    param: str | None = Field(description="the parameter at fault, like input[3]")
    code: str


class ErrorEnvelope(ResponseBody):
    error: ErrorBody


class Usage(ResponseBody):
    prompt_tokens: int
    total_tokens: int
    readings: int | None = Field(None, description="rows of readings, where a sensor model answered")
