"""Bodies of the registry: versions, the ledger, promote, roll back, aliases."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from models.registry.names import NAME_PATTERN
from models.registry.pointer_history import Action, Change
from service.api.schemas.answers import ListAnswer, ResponseBody
from service.api.schemas.jobs import Columns
from service.api.schemas.requests import Count, RequestBody, to_integer


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


KEY_PATTERN = "^key-[0-9a-f]{12}$"


class OwnerBody(RequestBody):
    owner: str = Field(description="the id of an API key, as `sonde keys list` shows it", pattern=KEY_PATTERN)


class HeldOutBody(RequestBody):
    file: str = Field(description="the id of an uploaded file", min_length=1, max_length=100)
    columns: Columns = Field(
        default_factory=dict, description="for texts: our column names with the file's, as in a job"
    )


class AliasBody(RequestBody):
    target: str = Field(description="a trained model's name, or name:vN", pattern=f"^{NAME_PATTERN}$")


class InService(ResponseBody):
    object: Literal["model.pointer"]
    model: str
    version: int | None = Field(description="the version in service; null when none is")
    generation: int = Field(description="the number of changes so far")
    previous: int | None = Field(description="the version that served before; a rollback leads to it")


class Version(ResponseBody):
    id: str = Field(description="a name that every route takes")
    object: Literal["model.version"]
    version: int
    in_service: bool
    created: int | None
    task: str | None
    base: str | None
    base_version: str | None
    encoder: Literal["base", "own", "none", "program"] | None = Field(
        description="the base's encoder, its own, none: a sensor model, or program: an exported one"
    )
    labels: list[str]
    metrics: dict[str, float]
    metric_labels: dict[str, str] = Field(description="each metric's name as people read it")
    job: str | None
    owner: str | None = Field(description="the API key whose job trained it; null from before owners")
    error: str | None = Field(description="why it cannot be read, when it cannot")


class VersionList(ListAnswer[Version]):
    model: str
    generation: int


class Trained(ResponseBody):
    id: str = Field(description="the name")
    object: Literal["model.name"]
    version: int | None = Field(description="the version in service; null when none is")
    versions: list[int]
    generation: int = Field(description="the number of changes so far")
    previous: int | None = Field(description="the version that served before; a rollback leads to it")


class TrainedList(ListAnswer[Trained]):
    pass


class LedgerEntry(ResponseBody):
    at: int = Field(description="Unix seconds")
    action: Literal[Action, Change]
    version: int | None
    by: str
    why: str = Field(description="the reason; of an owner or a grant the key, of bound rows the file")
    owner: str | None = Field(None, description="the API key that owns the version")


class Ledger(ListAnswer[LedgerEntry]):
    model: str


class Owners(ResponseBody):
    object: Literal["model.owner"]
    model: str
    owner: str | None = Field(description="the key that owns the name; null without an owner")
    grants: list[str] = Field(description="the keys to which an admin granted the name")


class BoundRows(ResponseBody):
    object: Literal["model.held_out"]
    model: str
    file: str = Field(description="the id of the upload, which may be deleted since")
    sha256: str
    rows: int
    task: str
    by: str = Field(description="the key that bound it")
    at: int = Field(description="Unix seconds")


class HeldOutDeleted(ResponseBody):
    object: Literal["model.held_out"]
    model: str
    deleted: bool


class Alias(ResponseBody):
    id: str
    object: Literal["alias"]
    target: str


class AliasList(ListAnswer[Alias]):
    pass


class AliasDeleted(ResponseBody):
    id: str
    object: Literal["alias"]
    deleted: bool
