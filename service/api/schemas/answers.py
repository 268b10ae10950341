"""Base classes of all answers, and the parts that several share."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


def _leave_open(schema: dict[str, Any]) -> None:
    """Allow more fields by saying nothing of them: generators of clients would make a map of the answer."""
    schema.pop("additionalProperties", None)


class ResponseBody(BaseModel):
    """An answer, which may have more fields. It only documents: routes build answers as bytes."""

    # Its validator would be built at import, and is never used.
    model_config = ConfigDict(extra="allow", json_schema_extra=_leave_open, defer_build=True)


class ListAnswer(ResponseBody, Generic[T]):
    object: Literal["list"]
    data: list[T]
    has_more: bool


class ListAnswerWithIds(ListAnswer[T]):
    """A page as OpenAI's clients read it."""

    first_id: str | None
    last_id: str | None


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
