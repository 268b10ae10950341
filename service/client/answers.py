"""What the service answers. Each keeps the fields that it does not name, for `model_dump`."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


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
