"""The rows bound to the job's name, on which every version is measured.

The new model and the version in service are measured by the very files that answer requests. The new model has not
seen these rows, since they are left out of its training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from models.counted import counted
from models.errors import SondeError
from models.images.detectors.serialization import load_image_detector
from models.sensors.calibrated_detector import FittedDetector
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.model import AnomalyModel, Forecaster
from models.sensors.serialization import load_sensor
from models.text.detectors.serialization import load_detector
from models.training.checks.wording import warn_if
from models.training.context import EncoderContext, ImageContext, JobContext, TextContext
from models.training.data.baselines import repeat_last
from models.training.data.bound_readings import read_bound_readings
from models.training.data.dataset import LabelledParts, ReadRows, read_bound
from models.training.data.segments import Segments
from models.training.embeddings import CachedEmbedder
from models.training.errors import TrainingError
from models.training.job import BoundFile, BoundMetrics, TrainingJob
from models.training.job_events import emit
from models.training.metrics import in_words
from models.training.recipes.classification import head_metrics
from models.training.recipes.image_anomaly import image_detector_metrics
from models.training.recipes.incumbents import ENCODER, open_base
from models.training.recipes.retrieval_metrics import evaluate
from models.training.recipes.text_anomaly import detector_metrics
from models.training.report import Finding
from models.training.sensors.detector_selection import metrics_of, score_runs
from models.training.sensors.fit_forecaster import Standardisation, errors_of, held_out_windows, relative_unit, skill
from models.training.tuning.encoder_tuning import open_encoder

log = logging.getLogger(__name__)

Metrics = Mapping[str, float]


def bound_rows(job: TrainingJob, read: ReadRows | None = None) -> LabelledParts | None:
    """The texts bound to the job's name, or the images that `read` reads; None without any, or for another task.

    Raises TrainingDataError.
    """
    return read_bound(job.bound, read) if job.bound is not None and _is_for(job, job.bound) else None


def bound_readings(job: TrainingJob) -> Segments | None:
    """The readings bound to the job's name; None without any, or where they are of another task.

    Raises TrainingDataError.
    """
    return read_bound_readings(job.bound) if job.bound is not None and _is_for(job, job.bound) else None


def measure_texts(context: TextContext, bound: LabelledParts | None, left_out: int) -> BoundMetrics | None:
    """Metrics of the new model and of the version in service on the texts bound to the name; None without any."""
    if bound is None:
        return _refuse_other_task(context)

    def measure(artifact: Path) -> Metrics:
        return _text_metrics(context, artifact, _embedder_of(context, artifact), bound)

    return _measure(context, measure, len(bound), left_out)


def measure_images(context: ImageContext, bound: LabelledParts | None, left_out: int) -> BoundMetrics | None:
    """Metrics of the new model and of the version in service on the images bound to the name; None without any."""
    if bound is None:
        return _refuse_other_task(context)

    def measure(artifact: Path) -> Metrics:
        embedder, keys = _embedder_of(context, artifact), bound.rows.texts[0]
        if context.job.task == "classification":
            return head_metrics(artifact, embedder, keys, bound.rows.labels or ())
        return image_detector_metrics(context, load_image_detector(artifact), keys, bound.out_of_scope)

    return _measure(context, measure, len(bound), left_out)


def measure_readings(context: JobContext, bound: Segments | None, left_out: int) -> BoundMetrics | None:
    """Metrics of the new model and of the version in service on the readings bound to the name; None without any."""
    if bound is None:
        return _refuse_other_task(context)
    longest = max((_context_of(path) for path in (context.result, context.job.incumbent) if path), default=0)
    return _measure(context, lambda path: _sensor_metrics(load_sensor(path), bound, longest), len(bound), left_out)


def _embedder_of(context: EncoderContext, artifact: Path) -> CachedEmbedder:
    """The encoder that an artifact answers with: its own or its base. Raises ModelError."""
    if (artifact / ENCODER).is_dir():
        return open_encoder(context, artifact / ENCODER)
    return context.embedder if artifact == context.result else open_base(context)


def _text_metrics(context: TextContext, artifact: Path, embedder: CachedEmbedder, bound: LabelledParts) -> Metrics:
    texts, task = bound.rows.texts[0], context.job.task
    if task == "classification":
        return head_metrics(artifact, embedder, texts, bound.rows.labels or ())
    if task == "anomaly":
        return detector_metrics(load_detector(artifact), embedder(texts), embedder(bound.out_of_scope))
    if task == "embedding":
        return evaluate(embedder, bound.rows).metrics
    from models.training.recipes.rerank import evaluate_saved  # importing it takes seconds

    return evaluate_saved(artifact / ENCODER, context.placement, bound.rows)[0]


def _sensor_metrics(sensor: AnomalyModel | Forecaster, bound: Segments, longest: int) -> Metrics:
    """Metrics on readings. Forecasters of several contexts, of which `longest` is the longest, forecast the same rows.

    A forecaster's `primary` is its skill against the last value, in standard deviations of the bound readings.
    """
    if sensor.columns != bound.columns:
        raise _unmeasurable(f"it reads {', '.join(sensor.columns)}, the rows have {', '.join(bound.columns)}")
    if isinstance(sensor, FittedDetector):
        scores = score_runs(sensor, bound)
        if not len(scores.rows):
            raise _unmeasurable(f"no run of the rows has the {sensor.window} readings of its window")
        return metrics_of(sensor, bound, scores)
    if not isinstance(sensor, SeriesForecaster):
        raise _unmeasurable("it is neither a detector nor a forecaster of series")
    runs = [bound.readings[rows] for rows in bound.each()]
    try:
        windows = held_out_windows(sensor, runs, skip=longest - sensor.context)
    except ValueError as error:
        raise _unmeasurable(str(error)) from error
    unit = relative_unit(sensor.spread, torch.from_numpy(Standardisation.of(runs).spread))
    ours, naive = (errors_of(model, windows, unit=unit) for model in (sensor.model, repeat_last(sensor.horizon)))
    count = float(len(windows))
    return {"primary": skill(ours.mse, naive.mse), "mse": ours.mse, "mae": ours.mae, "held_out_windows": count}


def _context_of(artifact: Path) -> int:
    """The context of a forecaster, 0 for other models and for files that cannot be read."""
    try:
        sensor = load_sensor(artifact)
    except SondeError:
        return 0  # measuring it says why
    return sensor.context if isinstance(sensor, SeriesForecaster) else 0


def _measure(context: JobContext, measure: Callable[[Path], Metrics], rows: int, left_out: int) -> BoundMetrics | None:
    job = context.job
    if job.bound is None:
        return None
    ours, objection = _try(measure, context.result, "it")
    theirs = None
    if job.incumbent is not None:
        theirs, other = _try(measure, job.incumbent, "the version in service")
        objection = objection or other
    measured = BoundMetrics(job.bound.sha256, rows, left_out, ours, theirs, objection)
    _report(context, measured)
    return measured


def _try(measure: Callable[[Path], Metrics], artifact: Path, what: str) -> tuple[Metrics | None, str | None]:
    """The metrics, or why there are none."""
    try:
        return measure(artifact), None
    except TrainingError as error:
        reason = error.message
    except SondeError as error:
        # The message may name a path of this machine, so it stays out of the job.
        log.warning("cannot measure %s on the bound rows: %s", what, error.message)
        reason = "its files or its encoder cannot be opened here"
    return None, f"{what} cannot be measured on the rows bound to this name: {reason}"


def _refuse_other_task(context: JobContext) -> BoundMetrics | None:
    """The objection to a model of another task than that of the bound rows; None where no rows are bound."""
    bound = context.job.bound
    if bound is None:
        return None
    why = "the rows bound to this name are for another task or kind of readings: give the job another suffix"
    measured = BoundMetrics(bound.sha256, 0, 0, objection=why)
    _report(context, measured)
    return measured


def _report(context: JobContext, measured: BoundMetrics) -> None:
    """Write the metrics to the job's events and its report."""
    parts = [f"{counted(measured.rows, 'row is', 'rows are')} bound to the name"]
    if measured.left_out:
        one, many = (
            "row of the training file is among them and was",
            "rows of the training file are among them and were",
        )
        parts.append(f"{counted(measured.left_out, one, many)} not trained on")
    if measured.metrics:
        parts.append(f"the new model: {in_words(measured.metrics)}")
    if measured.incumbent_metrics:
        parts.append(f"the version in service: {in_words(measured.incumbent_metrics)}")
    if measured.objection:
        parts.append(measured.objection)
    message = "; ".join(parts)
    emit(context.events, message, "warn" if measured.objection else "info")
    status, remedy = warn_if(bool(measured.objection)), "The version is held; an admin may promote it."
    context.report.add(Finding.of("outcome", "bound_rows", status, None, None, f"{message}.", remedy))


def _is_for(job: TrainingJob, bound: BoundFile) -> bool:
    """Whether rows are for a job's task, and for its kind of readings."""
    return (bound.task, bound.hyperparameters.get("kind")) == (job.task, job.hyperparameters.get("kind"))


def _unmeasurable(message: str) -> TrainingError:
    return TrainingError("unmeasurable", message)
