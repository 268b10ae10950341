"""The HTTP contract of anomaly scores and forecasts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator

from service.api.schemas.answers import ResponseBody, Usage
from service.api.schemas.images import EncodedImage, check_images, image_or_images
from service.api.schemas.readings import RecordList, RequiredSeries, SeriesRows, Timestamps
from service.api.schemas.requests import (
    MAX_INPUTS,
    MODEL,
    TEXT_SCHEMA,
    TRUNCATE,
    RequestBody,
    check_texts,
    kind_of,
    text_or_texts,
    to_integer,
)
from service.api.schemas.tensors import TakesTensors
from service.errors import InvalidRequest
from service.serving.stream_state import MAX_CHARACTERS

ImageDetectorName = Literal["padim", "patchcore"]
_MAX_QUANTILES = 99
MAX_HORIZON = 100_000
MAX_EVENT_ROWS = 1_000_000


class EventOptions(RequestBody):
    """Rules of events; each is a number of readings."""

    gap: Annotated[int, Field(ge=1, le=MAX_EVENT_ROWS), BeforeValidator(to_integer)] | None = Field(
        None, description="flagged readings at most so far apart are one event; without it, the model's window"
    )
    min_duration: Annotated[int, Field(ge=1, le=MAX_EVENT_ROWS), BeforeValidator(to_integer)] = Field(
        1, description="shorter events are left out"
    )
    cooldown: Annotated[int, Field(ge=0, le=MAX_EVENT_ROWS), BeforeValidator(to_integer)] = Field(
        0, description="an event that begins so soon after an alert is no alert itself"
    )


def _check_reference(value: object) -> list[Any]:
    """At least two texts, or images as a form has them; what strings are depends on the other fields."""
    if isinstance(value, list) and any(isinstance(item, bytes) for item in value):
        return check_images(value, "reference", least=2)
    texts = check_texts(value, "reference")
    if len(texts) < 2:
        raise InvalidRequest.at("reference", f"expected at least 2 texts or images, got {len(texts)}")
    return texts


Reference = Annotated[
    list[Any],
    PlainValidator(_check_reference),
    WithJsonSchema({"type": "array", "items": TEXT_SCHEMA, "minItems": 2, **MAX_INPUTS}),
]


class AnomalyBody(TakesTensors):
    _exactly_one = ("input", "images", "records", "series", "inputs", "rows")

    model: str = MODEL
    input: text_or_texts("input") | None = Field(None, description="texts; or else records or series")  # type: ignore[valid-type]
    images: image_or_images("images") | None = Field(  # type: ignore[valid-type]
        None, description="images as base64 or data URIs; a form may have them as files"
    )
    records: RecordList = Field(
        None, description="readings, each scored by itself: objects with a value a column, or rows"
    )
    series: SeriesRows = Field(None, description="readings, in the order of time")
    timestamps: Timestamps = Field(None, description="of a series, one a row: ISO 8601, or Unix seconds; increasing")
    state: str | None = Field(None, description="of a series: the state in the answer before, to continue from it")
    late: Literal["reject", "drop"] = Field(
        "reject",
        description=(
            "what to do with readings of a series whose timestamp is not later than all before: refuse the request, "
            "or leave them out and say so in `warnings`"
        ),
    )
    events: bool | EventOptions = Field(
        False, description="of a series: flagged readings as events, which `state` carries over to the next call"
    )
    contributions: bool = Field(False, description="of readings: each column's share of each score")
    reference: Reference | None = Field(
        None, description="for an encoder: normal texts, or normal images with `images`; 20 or more for alpha = 0.05"
    )
    detector: ImageDetectorName = Field(
        "padim", description="of images: padim for views that are all alike, patchcore for those that are not"
    )
    maps: bool = Field(False, description="of images: answer each with a picture of where it is strange")
    alpha: float = Field(
        0.05, ge=1e-6, lt=1, description="the share of normal texts or readings that may be called anomalies"
    )
    truncate: bool = TRUNCATE

    @model_validator(mode="after")
    def _require_what_goes_together(self) -> Self:
        fields = {"timestamps": self.timestamps, "state": self.state, "events": self.events or None}
        for name, value in fields.items():
            if value is not None and self.series is None:
                raise InvalidRequest.at(name, "goes with series; texts and records are judged each by itself")
        if self.maps and self.images is None:
            raise InvalidRequest.at("maps", "goes with images")
        return self

    @property
    def normal_images(self) -> list[EncodedImage]:
        """The reference of a request with images."""
        return check_images(self.reference or [], "reference", least=0)


class Nearest(ResponseBody):
    index: int = Field(description="position in `reference`, or among the texts it was trained on")
    similarity: float = Field(description="cosine")


class AnomalyObject(ResponseBody):
    object: Literal["anomaly"]
    index: int
    score: float = Field(description="higher is stranger")
    p_value: float = Field(description="the share of normal texts or readings at least as strange")
    is_anomaly: bool
    contributions: dict[str, float] | None = Field(
        description="of readings, when asked for: each column's share of the score"
    )
    nearest: list[Nearest]
    anomaly_map: str | None = Field(
        None, description="of images, when asked for: a PNG of grey as data URI; from 128 on, a place is strange"
    )
    truncated: bool


class MomentObject(ResponseBody):
    index: int = Field(description="of the reading in this request; negative in requests before")
    timestamp: str | float | None = Field(description="in the form in which timestamps came; null without")


class PeakObject(MomentObject):
    score: float
    p_value: float


class BlamedColumn(ResponseBody):
    name: str
    share: float = Field(description="of the event's scores")


class EventObject(ResponseBody):
    object: Literal["event"]
    start: MomentObject = Field(description="of an open event: since when")
    end: MomentObject | None = Field(description="the last flagged reading; null while it is open")
    open: bool = Field(description="whether the next readings may belong to it")
    readings: int = Field(description="from the start to the last flagged one")
    flagged: int = Field(description="how many of them are anomalies")
    peak: PeakObject = Field(description="the highest score")
    p_value: float = Field(description="of the whole event: twice the mean of its readings' p-values, at most 1")
    severity: Literal["low", "medium", "high"] = Field(
        description=(
            "high: the peak is stranger than all normal readings that calibrated the model; medium: its p-value is "
            "at most a fifth of alpha"
        )
    )
    alert: bool = Field(description="false for an event that begins within `cooldown` readings after an alert")
    columns: list[BlamedColumn] = Field(description="the columns to blame, the first one most")


class DriftObject(ResponseBody):
    detected: bool = Field(description="whether the detector no longer fits the readings")
    p_value: float = Field(description="small when recent p-values differ from those of normal readings")


class AnomalyAnswer(ResponseBody):
    object: Literal["list"]
    model: str
    alpha: float
    threshold: float | None = Field(
        description=(
            "scores from it on are anomalies; null when too little is known for this alpha, or where it "
            "moves with the stream"
        )
    )
    data: list[AnomalyObject]
    events: list[EventObject] | None = Field(
        description="of a series, when asked for: those that ended in this request, and the open one"
    )
    drift: DriftObject | None = Field(description="of readings: as of the last one")
    state: str | None = Field(
        description=f"of a series: send it with the next readings; at most {MAX_CHARACTERS} characters"
    )
    reference: dict[str, Any] = Field(
        description="the number of normal texts or readings, whether cached, and the number of texts cut"
    )
    warnings: list[str]
    usage: Usage


def _check_quantiles(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) > _MAX_QUANTILES:
        raise InvalidRequest.at("quantiles", f"expected a list of at most {_MAX_QUANTILES} numbers above 0 and below 1")
    for index, level in enumerate(value):
        if type(level) is not float or not 0 < level < 1:
            param, got = f"quantiles[{index}]", level if type(level) in {int, float} else kind_of(level)
            raise InvalidRequest.at(param, f"expected a number above 0 and below 1, got {got}")
    if len(set(value)) < len(value):
        raise InvalidRequest.at("quantiles", "a level is there twice")
    return tuple(value)


_LEVEL = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
Quantiles = Annotated[
    tuple[float, ...],
    PlainValidator(_check_quantiles),
    WithJsonSchema({"type": "array", "items": _LEVEL, "maxItems": _MAX_QUANTILES, "uniqueItems": True}),
]


class ForecastBody(RequestBody):
    model: str = MODEL
    series: RequiredSeries = Field(description="readings, the last one now: rows, or objects with a value a column")
    timestamps: Timestamps = Field(None, description="one a row: ISO 8601, or Unix seconds; increasing")
    horizon: Annotated[int, Field(ge=1, le=MAX_HORIZON), BeforeValidator(to_integer)] | None = Field(
        None, description="steps; without it, the model's maximum"
    )
    quantiles: Quantiles = Field(
        (0.1, 0.5, 0.9), description="levels; a reading is below that of 0.9 nine times in ten"
    )


class ForecastAnswer(ResponseBody):
    object: Literal["forecast"]
    model: str
    columns: list[str]
    timestamps: list[str | float] | None = Field(
        description="of the steps, in the form in which they came; null when none came"
    )
    step: str | None = Field(
        description="of the timestamps: month, quarter, year, business day, day, or seconds such as 3600 s"
    )
    mean: list[list[float]] = Field(description="a row a step, a number a column")
    quantiles: dict[str, list[list[float]]]
    warnings: list[str]
    usage: Usage
