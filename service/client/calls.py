"""The calls that the service takes, each as a function from arguments to a `Call`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import IO, Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from service.client.answers import (
    Classifications,
    Deleted,
    Detections,
    Embeddings,
    Feedback,
    File,
    Forecast,
    InService,
    Model,
    Page,
    Ranking,
    ReadPages,
    Scores,
    Version,
)
from service.client.call import Call
from service.client.errors import BadInput
from service.client.images import Image, encode_images
from service.client.job_answers import Job, JobEvent, Report
from service.client.tensors import Rows, Tensors, describe_tensors

Labels = Sequence[str] | Mapping[str, str | Sequence[str]]
# Rows of numbers, or dictionaries with a number for each column; None where one is missing.
Readings = Sequence[Sequence[float | None]] | Sequence[Mapping[str, float | None]]
M = TypeVar("M", bound=BaseModel)
_JOBS = "/v1/fine_tuning/jobs"


def embed(
    texts: str | Sequence[str] | None = None,
    *,
    model: str,
    images: Sequence[Image] | None = None,
    rows: Rows | None = None,
    inputs: Tensors | None = None,
    **options: Any,
) -> Call[Embeddings]:
    """Vectors of texts or images, or of `rows` or `inputs` of an exported program.

    `options` are further fields of `POST /v1/embeddings`, such as `dimensions`.
    """
    return _post("/v1/embeddings", Embeddings, {"model": model, **_inputs(texts, images, rows, inputs), **options})


def classify(
    texts: str | Sequence[str] | None = None,
    *,
    model: str,
    labels: Labels | None = None,
    images: Sequence[Image] | None = None,
    rows: Rows | None = None,
    inputs: Tensors | None = None,
    **options: Any,
) -> Call[Classifications]:
    """Labels of texts or images, or of `rows` or `inputs` of an exported program.

    They are those of a classifier, or `labels` (names, or name → description or examples).
    """
    body = {"model": model, **_inputs(texts, images, rows, inputs), "labels": labels, **options}
    return _post("/v1/classify", Classifications, body)


def anomaly(
    texts: str | Sequence[str] | None = None,
    *,
    model: str,
    reference: Sequence[str] | Sequence[Image] | None = None,
    images: Sequence[Image] | None = None,
    rows: Rows | None = None,
    inputs: Tensors | None = None,
    records: Readings | None = None,
    series: Readings | None = None,
    columns: Sequence[str] | None = None,
    timestamps: Sequence[str | float] | None = None,
    state: str | None = None,
    alpha: float = 0.05,
    contributions: bool = False,
    events: bool | Mapping[str, int] = False,
) -> Call[Scores]:
    """Scores of texts or images, of records or a series, or of `rows` or `inputs` of an exported program.

    `columns` names the numbers of rows that are lists; the service then finds each by name, in any order. `events` of a
    series joins anomalies; it may have `gap`, `min_duration` and `cooldown`, in readings.
    """
    body = {
        "model": model,
        **_inputs(texts, images, rows, inputs),
        "reference": None if reference is None else encode_images(reference),
        "records": _named(records, columns),
        "series": _named(series, columns),
        "timestamps": timestamps,
        "state": state,
        "alpha": alpha,
        "contributions": contributions or None,
        "events": events or None,
    }
    return _post("/v1/anomaly/score", Scores, body)


def forecast(
    series: Readings,
    *,
    model: str,
    columns: Sequence[str] | None = None,
    timestamps: Sequence[str | float] | None = None,
    horizon: int | None = None,
    quantiles: Sequence[float] | None = None,
) -> Call[Forecast]:
    """The next steps of a series; `columns` as in `anomaly`."""
    body = {
        "model": model,
        "series": _named(series, columns),
        "timestamps": timestamps,
        "horizon": horizon,
        "quantiles": quantiles,
    }
    return _post("/v1/forecast", Forecast, body)


def detect(
    images: Sequence[Image], *, model: str, threshold: float | None = None, top_k: int | None = None
) -> Call[Detections]:
    """The objects of images with a score above `threshold`; without it, above the service's default."""
    body = {"model": model, "images": encode_images(images), "threshold": threshold, "top_k": top_k}
    return _post("/v1/detect", Detections, body)


def ocr(images: Sequence[Image], *, model: str, lines: bool = True) -> Call[ReadPages]:
    """The text of images: of each line that is found, or with `lines=False` of each image as one line."""
    return _post("/v1/ocr", ReadPages, {"model": model, "images": encode_images(images), "lines": lines})


def rerank(query: str, documents: Sequence[str], *, model: str, top_n: int | None = None) -> Call[Ranking]:
    """The documents by relevance to the query, the best first."""
    return _post("/v2/rerank", Ranking, {"model": model, "query": query, "documents": documents, "top_n": top_n})


def feedback(
    text: str | None = None, *, model: str, correct_label: str, label: str | None = None, image: Image | None = None
) -> Call[Feedback]:
    """Keep the label that a text or an image should have had."""
    [encoded] = [None] if image is None else encode_images([image])
    body = {"model": model, "text": text, "image": encoded, "correct_label": correct_label, "label": label}
    return _post("/v1/feedback", Feedback, body, repeatable=False)


def upload(file: IO[bytes], *, name: str = "") -> Call[File]:
    """Upload a file of rows; the ending of its name (.jsonl, .csv, .parquet) says what it holds."""
    given = name or PurePath(str(getattr(file, "name", "rows.jsonl"))).name
    return Call("POST", "/v1/files", _reader(File), file=(given, file), repeatable=False)


def delete_file(file: str) -> Call[Deleted]:
    """Delete an uploaded file."""
    return Call("DELETE", f"/v1/files/{_part(file)}", _reader(Deleted))


def train(
    training_file: str,
    *,
    model: str,
    task: str = "classification",
    suffix: str | None = None,
    seed: int | None = None,
    validation_file: str | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Call[Job]:
    """Start a job on an uploaded file (its id), or on `feedback:MODEL`; `model` is `sensors` for readings."""
    supervised = {"task": task, "hyperparameters": dict(hyperparameters or {}), "columns": dict(columns or {})}
    body = {
        "model": model,
        "training_file": training_file,
        "validation_file": validation_file,
        "suffix": suffix,
        "seed": seed,
        "method": {"type": "supervised", "supervised": supervised},
    }
    # With the key, the service creates one job however often the request reaches it.
    return Call("POST", _JOBS, _reader(Job), body=_given(body), headers={"idempotency-key": secrets.token_hex(16)})


def job(job_id: str) -> Call[Job]:
    """One job."""
    return Call("GET", f"{_JOBS}/{_part(job_id)}", _reader(Job))


def jobs(*, limit: int = 20, after: str | None = None) -> Call[Page[Job]]:
    """Jobs, the newest first."""
    return Call("GET", _JOBS, _reader(Page[Job]), params={"limit": limit, "after": after})


def cancel(job_id: str) -> Call[Job]:
    """Cancel a job. To cancel it twice changes nothing."""
    return Call("POST", f"{_JOBS}/{_part(job_id)}/cancel", _reader(Job))


def pause(job_id: str) -> Call[Job]:
    """Have a job write a checkpoint and free its device."""
    return Call("POST", f"{_JOBS}/{_part(job_id)}/pause", _reader(Job))


def resume(job_id: str) -> Call[Job]:
    """Have a paused job continue."""
    return Call("POST", f"{_JOBS}/{_part(job_id)}/resume", _reader(Job))


def events(job_id: str, *, limit: int = 100, after: str | None = None) -> Call[Page[JobEvent]]:
    """Events of a job, the newest first."""
    params = {"limit": limit, "after": after}
    return Call("GET", f"{_JOBS}/{_part(job_id)}/events", _reader(Page[JobEvent]), params=params)


def report(job_id: str) -> Call[Report]:
    """The report of a job's checks."""
    return Call("GET", f"{_JOBS}/{_part(job_id)}/report", _reader(Report), headers={"accept": "application/json"})


def report_page(job_id: str) -> Call[str]:
    """The report as an HTML page that needs no other file."""
    headers = {"accept": "text/html"}
    return Call("GET", f"{_JOBS}/{_part(job_id)}/report", lambda response: response.text, headers=headers)


def models() -> Call[Page[Model]]:
    """The models in service."""
    return Call("GET", "/v1/models", _reader(Page[Model]))


def model(name: str) -> Call[Model]:
    """One model with its signature."""
    return Call("GET", _model(name), _reader(Model))


def versions(name: str) -> Call[Page[Version]]:
    """The versions of a trained model, the newest first."""
    return Call("GET", f"{_model(name)}/versions", _reader(Page[Version]))


def promote(name: str, version: int, *, why: str = "") -> Call[InService]:
    """Put a version in service."""
    return _post(f"{_model(name)}/promote", InService, {"version": version, "why": why})


def rollback(name: str, *, why: str = "") -> Call[InService]:
    """Put the version before back in service."""
    return _post(f"{_model(name)}/rollback", InService, {"why": why}, repeatable=False)


def delete_model(name: str) -> Call[Deleted]:
    """Delete a trained model, or with `:vN` one version of it."""
    return Call("DELETE", _model(name), _reader(Deleted), repeatable=False)


def _post(path: str, answer: type[M], body: Mapping[str, object], *, repeatable: bool = True) -> Call[M]:
    return Call("POST", path, _reader(answer), body=_given(body), repeatable=repeatable)


def _given(body: Mapping[str, object]) -> dict[str, object]:
    """The fields that were given; the service has the defaults."""
    return {name: value for name, value in body.items() if value is not None}


def _reader(answer: type[M]) -> Callable[[httpx.Response], M]:
    return lambda response: answer.model_validate_json(response.content)


def _inputs(
    texts: str | Sequence[str] | None, images: Sequence[Image] | None, rows: Rows | None, inputs: Tensors | None
) -> dict[str, object]:
    """The fields of a task's inputs; the service says so unless exactly one was given."""
    return {
        "input": None if texts is None else _texts(texts),
        "images": None if images is None else encode_images(images),
        "rows": rows,
        "inputs": None if inputs is None else describe_tensors(inputs),
    }


def _texts(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _named(rows: Readings | None, columns: Sequence[str] | None) -> object:
    """The rows, as dictionaries where their columns have names.

    Raises BadInput for a row of another length, and for a name that is there twice.
    """
    if rows is None or columns is None:
        return rows
    if len(set(columns)) < len(columns):
        raise BadInput(f"columns: expected each name once, got {', '.join(columns)}")
    for index, row in enumerate(rows):
        if isinstance(row, Mapping) or len(row) != len(columns):
            raise BadInput(f"row {index}: expected a list of {len(columns)} numbers, for {', '.join(columns)}")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _part(text: str) -> str:
    return quote(text, safe="")


def _model(name: str) -> str:
    return f"/v1/models/{_part(name)}"
