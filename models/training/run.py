"""The training process, `python -m models.training.run DIRECTORY`.

It reads job.json and writes result/ and result.json. Events go to standard output as JSON lines, everything else to
standard error. Exit codes: 0 done; 3 another attempt would end the same (error.json has the reason); 4 the disk is
full; 143 stopped by SIGTERM; any other may be retried.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import TextIO

from models.counted import counted
from models.errors import ModelSourceError, SondeError
from models.filesystem import is_full
from models.loader import load, load_images
from models.runtime.autotune_cache import autotune_cache
from models.runtime.malloc import keep_freed_memory
from models.runtime.memory import is_out_of_memory
from models.runtime.placement import Placement, place
from models.source import ModelSource, locate
from models.training.checks.before_training import check_images, check_rows
from models.training.context import ImageContext, JobContext, TextContext, prepare
from models.training.data.dataset import DataSplit, read_split
from models.training.data.image_reader import ImageReader
from models.training.embeddings import Embedder, EmbeddingCache
from models.training.errors import shorten
from models.training.hyperparameter_parser import parse
from models.training.hyperparameters import (
    ClassificationHyperparameters,
    EmbeddingHyperparameters,
    ForecastHyperparameters,
    ImageAnomalyHyperparameters,
    ImageClassificationHyperparameters,
    RerankHyperparameters,
    SensorAnomalyHyperparameters,
    TextAnomalyHyperparameters,
)
from models.training.images.embeddings import ImageEmbedder
from models.training.images.store import ImageStore
from models.training.job import ERROR, RESULT, Outcome, TrainingJob, read_job, write_json
from models.training.job_events import Events, Heartbeat, emit, json_lines, set_phase
from models.training.recipes import (
    classification,
    forecast,
    image_anomaly,
    image_classification,
    sensor_anomaly,
    text_anomaly,
)
from models.training.recipes.bound_rows import bound_rows, measure_images, measure_texts
from models.training.report import Report
from models.training.report_markdown import to_markdown

# Serving has clients that wait: where both share cores, it goes first.
_NICENESS = 10
_TextHyperparameters = (
    ClassificationHyperparameters | TextAnomalyHyperparameters | EmbeddingHyperparameters | RerankHyperparameters
)
_ImageHyperparameters = ImageClassificationHyperparameters | ImageAnomalyHyperparameters
# The version of the base "sensors", which has no weights: the sensor models of this version of the product.
SENSOR_VERSION = "1"
FAILED, FULL, STOPPED = 3, 4, 128 + signal.SIGTERM
# Faults of our code: the same seed would meet them again. Faults of a machine (OSError, RuntimeError) may pass.
_OWN_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError)
_MAX_FAULT_CHARACTERS = 300
_NO_MEMORY = (
    "the training process was refused more memory: train on fewer or shorter rows, set a smaller batch_size, or use a "
    "machine with more memory"
)


def run(directory: Path, events: Events) -> int:
    """Train the job in `directory`; return the exit code."""
    try:
        return _run(directory, events)
    except Exception as error:
        if not is_full(error):
            raise
        return FULL


def _run(directory: Path, events: Events) -> int:
    try:
        with _write_report(directory) as report:
            _train(directory, events, report)
    except SondeError as error:
        return _write_error(directory, error.code, error.message, error.param)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.print_exception(error)
        return _write_error(directory, "out_of_memory", _NO_MEMORY, None)
    except _OWN_FAULTS as error:
        traceback.print_exception(error)
        return _write_error(directory, "trainer_crashed", _describe_fault(error), None)
    return 0


@contextmanager
def _write_report(directory: Path) -> Iterator[Report]:
    """A report that is written however the job ends."""
    report = Report()
    try:
        yield report
    finally:
        (directory / "report.json").write_bytes(report.to_bytes())
        (directory / "report.md").write_text(to_markdown(report), encoding="utf-8")


def _train(directory: Path, events: Events, report: Report) -> None:
    set_phase(events, "validating_files")
    job = read_job(directory)
    settings = parse(job.task, job.hyperparameters)
    if isinstance(settings, SensorAnomalyHyperparameters | ForecastHyperparameters):
        outcome, version = _train_sensor(JobContext(job, directory, events, report), settings), SENSOR_VERSION
    elif isinstance(settings, _ImageHyperparameters):
        outcome, version = _train_images(directory, job, events, report, settings)
    else:
        outcome, version = _train_text(directory, job, events, report, settings)
    write_json(directory / RESULT, _result(job, outcome, version))


def _train_sensor(context: JobContext, settings: SensorAnomalyHyperparameters | ForecastHyperparameters) -> Outcome:
    prepare(context.job, context.directory)
    if isinstance(settings, ForecastHyperparameters):
        return forecast.train(context, settings)
    return sensor_anomaly.train(context, settings)


def _train_text(
    directory: Path, job: TrainingJob, events: Events, report: Report, settings: _TextHyperparameters
) -> tuple[Outcome, str]:
    """The outcome, and the version of the base encoder."""
    bound = bound_rows(job)
    parts = read_split(job, settings, bound)
    emit(events, f"{counted(len(parts.train), 'row')} to train on, {len(parts.held_out)} held out")
    context = _open_context(directory, job, events, report)
    check_rows(context, parts)
    set_phase(events, "running")
    outcome = _keep_encoder(context, _recipe(settings)(context, parts))
    outcome = replace(outcome, bound=measure_texts(context, bound, parts.left_out))
    report.raise_if_failed("outcome")
    return outcome, context.model.metadata.version


def _train_images(
    directory: Path, job: TrainingJob, events: Events, report: Report, settings: _ImageHyperparameters
) -> tuple[Outcome, str]:
    """The same for images, which are decoded with the encoder's processor."""
    context = _open_images(directory, job, events, report)
    reader = ImageReader(job.task, context.model.images.read, context.store)
    bound = bound_rows(job, reader.rows)
    parts = replace(read_split(job, settings, bound, reader.rows), colours=context.store.colours)
    emit(events, f"{counted(len(parts.train), 'image')} to train on, {len(parts.held_out)} held out")
    check_images(context, parts)
    set_phase(events, "running")
    if isinstance(settings, ImageClassificationHyperparameters):
        outcome = image_classification.train(context, settings, parts)
    else:
        outcome = image_anomaly.train(context, settings, parts)
    outcome = replace(outcome, bound=measure_images(context, bound, parts.left_out))
    report.raise_if_failed("outcome")
    return outcome, context.model.metadata.version


def _open_context(directory: Path, job: TrainingJob, events: Events, report: Report) -> TextContext:
    """Load the encoder on the job's device."""
    source, placement, cache = _open_base(directory, job, events)
    model = load(source, placement)
    return TextContext(job, directory, events, report, source, placement, cache, Embedder(model, cache, events), model)


def _open_images(directory: Path, job: TrainingJob, events: Events, report: Report) -> ImageContext:
    """Load the encoder of images on the job's device, and open a store for the images."""
    source, placement, cache = _open_base(directory, job, events)
    model = load_images(source, placement)
    if model is None or model.metadata.task != "embedding":
        raise ModelSourceError(f"{job.base}: expected an encoder of images; name another model", param="model")
    store = ImageStore(directory / "images")
    embedder = ImageEmbedder(model, store, cache, events)
    return ImageContext(job, directory, events, report, source, placement, cache, embedder, model, store)


def _open_base(
    directory: Path, job: TrainingJob, events: Events
) -> tuple[ModelSource, Placement, EmbeddingCache | None]:
    """Where the base is, its device, and the cache of its embeddings."""
    prepare(job, directory)
    autotune_cache.keep_in(job.autotune_file)
    # Training needs float32; heads fit an int8 encoder's embeddings well enough, as their golden inputs then show.
    placement = place(job.device, "float32" if job.dtype == "int8" else job.dtype)
    emit(events, f"{job.base} on {placement.device}: {placement.reason}")
    return locate(job.base_spec), placement, EmbeddingCache(job.cache) if job.cache is not None else None


def _recipe(settings: _TextHyperparameters) -> Callable[[TextContext, DataSplit], Outcome]:
    """The recipe for these settings. Importing those that train a whole model takes seconds."""
    if isinstance(settings, ClassificationHyperparameters):
        return lambda context, parts: classification.train(context, settings, parts)
    if isinstance(settings, TextAnomalyHyperparameters):
        return lambda context, parts: text_anomaly.train(context, settings, parts)
    if isinstance(settings, EmbeddingHyperparameters):
        from models.training.recipes import embedding

        return lambda context, parts: embedding.train(context, settings, parts)
    from models.training.recipes import rerank

    return lambda context, parts: rerank.train(context, settings, parts)


def _keep_encoder(context: TextContext, outcome: Outcome) -> Outcome:
    """Copy the encoder to the result where the base can be deleted."""
    if not context.job.keep_encoder or outcome.encoder == "own":
        return outcome
    shutil.copytree(context.source.path, context.result / "encoder")
    return replace(outcome, encoder="own")


def _result(job: TrainingJob, outcome: Outcome, base_version: str) -> dict[str, object]:
    incumbent = outcome.incumbent_metrics
    sensor = {} if outcome.sensor is None else {"sensor": dict(outcome.sensor)}
    return sensor | {
        "task": job.task,
        "mode": outcome.mode,
        "encoder": outcome.encoder,
        "base_version": base_version,
        "labels": list(outcome.labels),
        "metrics": dict(outcome.metrics),
        "incumbent_metrics": None if incumbent is None else dict(incumbent),
        "bound": None if outcome.bound is None else asdict(outcome.bound),
        "golden": dict(outcome.golden),
        "trained_tokens": outcome.trained_tokens,
    }


def _write_error(directory: Path, code: str, message: str, param: str | None) -> int:
    """Write error.json, which the worker adds to the job's events."""
    write_json(directory / ERROR, {"code": code, "message": message, "param": param})
    return FAILED


def _describe_fault(error: Exception) -> str:
    """A fault of our own for the owner of the job."""
    fault = shorten(" ".join(f"{type(error).__name__}: {error}".split()), _MAX_FAULT_CHARACTERS)
    met_again = "a fault of Sonde's own, which another attempt would meet again"
    return f"{met_again}: {fault}; the worker's log has the traceback"


@contextmanager
def _event_stream() -> Iterator[TextIO]:
    """Standard output for events alone; from here on, libraries print to standard error."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        yield stream


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM outside the tuning loop: the cache has already saved the embeddings."""
    raise SystemExit(STOPPED)


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m models.training.run DIRECTORY")
    signal.signal(signal.SIGTERM, _stop)
    os.nice(_NICENESS)
    keep_freed_memory()
    with _event_stream() as stream, Heartbeat(json_lines(stream)) as events:
        code = run(Path(sys.argv[1]), events)
    sys.exit(code)


if __name__ == "__main__":
    main()
