"""What the store hands out: rows as values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

Status = Literal["queued", "validating_files", "running", "paused", "succeeded", "failed", "cancelled"]
Level = Literal["info", "warn", "error"]
Control = Literal["cancel", "pause"]

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
BEGUN: frozenset[str] = frozenset({"validating_files", "running"})


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a caller asked for, checked."""

    id: str
    model: str
    spec: str
    task: str
    name: str
    seed: int
    training_file: str
    validation_file: str | None = None
    feedback_until: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A request that must be answered once: its Idempotency-Key, whose it is, and the SHA-256 of its body."""

    owner: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store has it; times are seconds since 1970."""

    seq: int
    id: str
    created_at: float
    status: Status
    control: Control | None
    model: str
    spec: str
    task: str
    name: str
    seed: int
    training_file: str
    validation_file: str | None
    feedback_until: int | None
    hyperparameters: dict[str, Any]
    columns: dict[str, str]
    metadata: dict[str, str] | None
    dispatch: int
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
class Event:
    """Something that happened in a job; `data` are numbers when `type` is metrics."""

    level: Level
    message: str
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] | None = None
    seq: int = 0
    created_at: float = 0.0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place to go on from; `path` is below SONDE_HOME."""

    step: int
    path: str
    metrics: dict[str, Any]
    seq: int = 0
    created_at: float = 0.0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Success:
    """What came of a job."""

    fine_tuned_model: str
    trained_tokens: int
    result: dict[str, Any]


T = TypeVar("T", Job, Event, Checkpoint)


def of(kind: type[T], row: sa.Row[Any]) -> T:
    """A row as a value of `kind`."""
    values = row._mapping  # noqa: SLF001  # public, and named so that no column hides it
    return kind(**{one.name: values[one.name] for one in fields(kind)})
