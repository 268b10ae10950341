"""Bodies of the registry: versions, the ledger, promote, roll back, aliases."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from models.registry.names import NAME_PATTERN
from service.api.schemas.base import RequestBody, ResponseBody
from service.api.schemas.fields import Count, to_integer


class ModelDeleted(ResponseBody):
    id: str
    object: Literal["model"]
    deleted: bool


WHY = Field("", description="for the ledger", max_length=1000)


class PromoteBody(RequestBody):
    version: Count
    why: str = WHY
    expected_generation: Annotated[int, Field(ge=0), BeforeValidator(to_integer)] | None = Field(
        None, description="refuse with 409 when the generation has changed"
    )


class MoveBody(RequestBody):
    why: str = WHY


class AliasBody(RequestBody):
    target: str = Field(description="a trained model's name, or name:vN", pattern=f"^{NAME_PATTERN}$")


class InService(ResponseBody):
    object: Literal["model.pointer"]
    model: str
    version: int | None = Field(description="the version in service; null when none is")
    generation: int = Field(description="the number of changes so far")
    previous: int | None = Field(description="what a rollback leads to")


class Version(ResponseBody):
    id: str = Field(description="a name that every route takes")
    object: Literal["model.version"]
    version: int
    in_service: bool
    created: int | None
    task: str | None
    base: str | None
    base_version: str | None
    encoder: Literal["base", "own", "none"] | None = Field(
        description="the base's encoder, its own, or none: a sensor model"
    )
    labels: list[str]
    metrics: dict[str, float]
    job: str | None
    owner: str | None = Field(description="the API key whose job trained it; null from before owners")
    error: str | None = Field(description="why it cannot be read, when it cannot")


class VersionList(ResponseBody):
    object: Literal["list"]
    model: str
    generation: int
    data: list[Version]
    has_more: bool


class LedgerEntry(ResponseBody):
    at: int = Field(description="Unix seconds")
    action: Literal["publish", "promote", "rollback", "withdraw", "delete"]
    version: int | None
    by: str
    why: str
    owner: str | None = Field(None, description="the API key that owns the version")


class Ledger(ResponseBody):
    object: Literal["list"]
    model: str
    data: list[LedgerEntry]
    has_more: bool


class Alias(ResponseBody):
    id: str
    object: Literal["alias"]
    target: str


class AliasList(ResponseBody):
    object: Literal["list"]
    data: list[Alias]
    has_more: bool


class AliasDeleted(ResponseBody):
    id: str
    object: Literal["alias"]
    deleted: bool
