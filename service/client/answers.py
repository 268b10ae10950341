"""What the service answers. Each keeps the fields that it does not name, for `model_dump`."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
ENDED = ("succeeded", "failed", "cancelled")


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class Page(Answer, Generic[T]):
    """A part of a list; `has_more` says whether another page follows."""

    data: list[T]
    has_more: bool = False


class Embedding(Answer):
    index: int
    embedding: list[float]
    truncated: bool


class Embeddings(Answer):
    """A vector for each input."""

    model: str
    data: list[Embedding]

    @property
    def vectors(self) -> list[list[float]]:
        """The vectors, float [n, d], in the order of the inputs."""
        return [item.embedding for item in self.data]


class LabelScore(Answer):
    label: str
    score: float


class Classification(Answer):
    """`label` is None below `min_confidence`; `labels` are the best first."""

    index: int
    label: str | None
    labels: list[LabelScore]
    out_of_scope: bool | None = None


class Classifications(Answer):
    model: str
    data: list[Classification]


class Box(Answer):
    """Corners in pixels of the image as it was sent."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


class DetectedObject(Answer):
    label: str
    score: float
    box: Box


class Detection(Answer):
    """The objects of one image, the best first."""

    index: int
    width: int
    height: int
    objects: list[DetectedObject]


class Detections(Answer):
    model: str
    data: list[Detection]


class ReadLine(Answer):
    text: str
    confidence: float
    box: Box
    truncated: bool


class ReadPage(Answer):
    """The text of one image; `confidence` is that of its least sure line, None without lines."""

    index: int
    width: int
    height: int
    text: str
    confidence: float | None
    lines: list[ReadLine]


class ReadPages(Answer):
    model: str
    data: list[ReadPage]


class Score(Answer):
    """The score of one text or reading; a higher one is more unusual."""

    index: int
    score: float
    p_value: float
    is_anomaly: bool
    contributions: dict[str, float] | None = None


class Moment(Answer):
    """A reading by its place in the request, negative in an earlier one, and its time."""

    index: int
    timestamp: str | float | None = None


class Peak(Moment):
    score: float
    p_value: float


class Blame(Answer):
    name: str
    share: float


class AnomalyEvent(Answer):
    """Anomalies of a series that belong together; `end` is None while it is open, `columns` are to blame."""

    start: Moment
    end: Moment | None
    open: bool
    readings: int
    peak: Peak
    p_value: float
    severity: str
    alert: bool
    columns: list[Blame]


class Drift(Answer):
    detected: bool
    p_value: float


class Reference(Answer):
    """What the p-values are measured by: `count` normal texts or readings."""

    count: int


class Scores(Answer):
    """Scores of texts or readings; `state` continues a series, and `events` are there where they were asked for."""

    model: str
    data: list[Score]
    alpha: float
    threshold: float | None
    reference: Reference
    drift: Drift | None
    state: str | None
    warnings: list[str]
    events: list[AnomalyEvent] | None = None


class Forecast(Answer):
    """Of each step the mean and quantiles, [steps, columns] in the order of `columns`."""

    model: str
    columns: list[str]
    timestamps: list[str | float] | None
    mean: list[list[float]]
    quantiles: dict[str, list[list[float]]]
    warnings: list[str]


class Ranked(Answer):
    index: int
    relevance_score: float


class Ranking(Answer):
    results: list[Ranked]


class File(Answer):
    id: str
    filename: str
    bytes: int


class Feedback(Answer):
    id: str
    model: str


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


class Event(Answer):
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
    candidates: dict[str, dict[str, float | None]] = {}


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
    examples: list[Example] = []


class Confusion(Answer):
    """The labels that a classifier confused most, `counts` of rows by true and by predicted label, the worst pairs."""

    labels: list[str]
    counts: list[list[int]]
    left_out: int = 0
    pairs: list[ConfusedPair] = []


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
    verdict: list[str] = []
    metrics: list[Metric] = []
    choices: list[Choice] = []
    confusion: Confusion | None = None
    events: ReportedEvents | None = None
    plots: dict[str, Any] | None = None
    error: JobError | None = None


class Model(Answer):
    id: str
    task: str
    version: str
    device: str
    dtype: str
    signature: dict[str, Any]


class Version(Answer):
    id: str
    version: int
    in_service: bool
    created: int | None = None
    task: str | None = None
    metrics: dict[str, float]
    metric_labels: dict[str, str] = Field(default_factory=dict)
    error: str | None = None


class InService(Answer):
    """The version that serves under a name after a change; None where none does."""

    model: str
    version: int | None
    previous: int | None


class Deleted(Answer):
    id: str
    deleted: bool
