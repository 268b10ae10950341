"""What the service answers about jobs: their states, events and reports."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.client.answers import Answer

ENDED = ("succeeded", "failed", "cancelled")


class JobError(Answer):
    code: str
    message: str
    param: str | None = None


class Job(Answer):
    id: str
    status: str
    paused: bool
    model: str
    fine_tuned_model: str | None
    created_at: int
    finished_at: int | None = None
    waiting: str | None = None
    error: JobError | None = None
    result: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the job."""
        return self.status in ENDED


class JobEvent(Answer):
    id: str
    created_at: int
    level: str
    message: str
    type: str
    data: dict[str, Any] | None = None

    @property
    def number(self) -> int:
        """Later events have larger numbers."""
        return int(self.id.rpartition("-")[2])


class Finding(Answer):
    """What one check of a job found; `rows` are lines of the file."""

    check: str
    status: str
    message: str
    remedy: str
    rows: list[int]
    label: str = ""
    subject: str = ""

    @property
    def name(self) -> str:
        """The check in words, and the part of the model that it is about."""
        return (self.label or self.check) + (f" ({self.subject})" if self.subject else "")


class Rung(Answer):
    rung: str
    title: str = ""
    status: str
    findings: list[Finding]


class Choice(Answer):
    """What a job chose, and why; `candidates` have the figures that decided, by name and label."""

    what: str
    chosen: str
    reason: str
    candidates: dict[str, dict[str, float | None]] = Field(default_factory=dict)


class Example(Answer):
    """A held-out text, shortened, and its line in the file."""

    line: int
    text: str


class ConfusedPair(Answer):
    """A label and another that it was taken for: in `rows` of its `of` held-out rows."""

    label: str
    taken_for: str
    rows: int
    of: int
    examples: list[Example] = Field(default_factory=list)


class Confusion(Answer):
    """The labels that a classifier confused most, `counts` of rows by true and by predicted label, the worst pairs."""

    labels: list[str]
    counts: list[list[int]]
    left_out: int = 0
    pairs: list[ConfusedPair] = Field(default_factory=list)


class ReportedEvent(Answer):
    """An event in the held-out readings; places are timestamps, or lines of a file without times."""

    start: str | int
    end: str | int
    readings: int
    severity: str
    p_value: float
    columns: list[str]
    labelled: bool | None = None


class ReportedEvents(Answer):
    """How many events a detector found in the held-out readings at `alpha`, and the strangest of them."""

    found: int
    alpha: float
    shown: list[ReportedEvent]


class Metric(Answer):
    """A metric of the new model with the ends of its interval, and of the version that served before."""

    name: str
    label: str
    value: float
    low: float | None = None
    high: float | None = None
    served_before: float | None = None


class Report(Answer):
    """A job's report: the verdict in sentences, metrics, choices, and the findings of five checks (`rungs`).

    `confusion` is there for classifiers, `events` for detectors; `plots` has the data of each plot by its name.
    """

    status: str
    rungs: list[Rung]
    title: str = ""
    verdict: list[str] = Field(default_factory=list)
    metrics: list[Metric] = Field(default_factory=list)
    choices: list[Choice] = Field(default_factory=list)
    confusion: Confusion | None = None
    events: ReportedEvents | None = None
    plots: dict[str, Any] | None = None
    error: JobError | None = None
