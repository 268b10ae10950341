"""Values that the store takes and returns.

A job has three shapes, each with a reason of its own:

- `service.api.schemas.jobs`: what OpenAI's clients send and read. It is public and must not follow our tables.
- `Job`: a row of the table `jobs`. `NewJob` is the part of it that the caller chose.
- `job.json` (`models.training.job.TrainingJob`): one attempt, with paths in place of ids. The training process
  reads it without a database.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

if TYPE_CHECKING:
    import sqlalchemy as sa  # the API imports this module before it needs a database

Status = Literal["queued", "validating_files", "running", "paused", "succeeded", "failed", "cancelled"]
Level = Literal["info", "warn", "error"]
Control = Literal["cancel", "pause"]

T = TypeVar("T")
JOB_PREFIX = "ftjob-"
FEEDBACK_PREFIX = "feedback:"
# The kind of feedback whose text is an image.
IMAGE = "image"

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
BEGUN: frozenset[str] = frozenset({"validating_files", "running"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A checked request for a job.

    `base` names the base model. `base_spec` says where it is, as `--model` takes it. `name` is that of the model to
    train, `ft:BASE:ORG:SUFFIX`. `owner` is the API key's id, None for a job from before owners.
    `feedback_reader` is the key whose feedback to read, None for that of all keys.
    """

    id: str
    base: str
    base_spec: str
    task: str
    name: str
    seed: int
    training_file: str
    validation_file: str | None = None
    feedback_until: int | None = None
    feedback_reader: str | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(NewJob):
    """A job in the store; times are seconds since 1970."""

    seq: int
    created_at: float
    status: Status
    control: Control | None
    attempt: int
    crashes: int
    lease: str | None
    started_at: float | None
    finished_at: float | None
    estimated_finish: float | None
    error_code: str | None
    error_message: str | None
    error_param: str | None
    fine_tuned_model: str | None
    trained_tokens: int | None
    result: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """An Idempotency-Key, the API key that sent it, and the SHA-256 of the request's body."""

    owner: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class JobEvent:
    """An event of a job; `data` holds numbers when `type` is metrics."""

    level: Level
    message: str
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] | None = None
    seq: int = 0
    created_at: float = 0.0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint from which training can resume; `path` is relative to SONDE_HOME."""

    step: int
    path: str
    metrics: dict[str, Any]
    seq: int = 0
    created_at: float = 0.0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """A report; `seq` is its number. The text is a data URI where `kind` is an image's."""

    seq: int
    created_at: float
    model: str
    text: str
    label: str | None
    correct_label: str
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a job failed."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Success:
    """The result of a job."""

    fine_tuned_model: str
    trained_tokens: int
    result: dict[str, Any]


def from_row(kind: type[T], row: sa.Row[Any]) -> T:
    """Convert a row to a value of `kind`, a dataclass whose fields are columns."""
    values = row._mapping  # noqa: SLF001  # public, and named so that no column hides it
    return kind(**{one.name: values[one.name] for one in fields(cast(Any, kind))})
