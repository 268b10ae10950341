"""The training process: `python -m models.training.run DIRECTORY` reads job.json there and writes result/ and
result.json.

Events go to standard output as JSON lines, everything else to standard error. Exit codes: 0 done, 3 another attempt
would end the same (error.json says why), 4 the disk is full (nothing more can be written), 143 stopped by SIGTERM,
anything else may be tried again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TextIO

import torch

from models.errors import SondeError
from models.filesystem import is_full
from models.loader import load
from models.runtime.malloc import keep_freed_memory
from models.runtime.placement import place
from models.source import locate
from models.training.checks.before_training import check_rows
from models.training.data.dataset import DataSplit, read_split
from models.training.embeddings import Embedder, EmbeddingCache
from models.training.events import Events, emit, lines, phase
from models.training.hyperparameters import (
    ClassificationHyperparameters,
    EmbeddingHyperparameters,
    ForecastHyperparameters,
    RerankHyperparameters,
    SensorAnomalyHyperparameters,
    TextAnomalyHyperparameters,
    parse,
)
from models.training.job import ERROR, RESULT, Outcome, SensorContext, TextContext, TrainingJob, read_job, write_json
from models.training.recipes import classification, forecast, sensor_anomaly, text_anomaly
from models.training.report import Report

# Callers wait for serving, nobody for training: where both share cores, serving goes first.
_NICENESS = 10
OfTexts = ClassificationHyperparameters | TextAnomalyHyperparameters | EmbeddingHyperparameters | RerankHyperparameters
# The version of the base "sensors", which has no weights: what models of numbers are made of in this version of the
# product.
SENSOR_VERSION = "1"
FAILED, FULL, STOPPED = 3, 4, 128 + signal.SIGTERM
# Slips of our code: the same seed would meet them again. What a machine does (OSError, RuntimeError, MemoryError) may
# pass.
_SLIPS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError)
_LONGEST = 300


def run(directory: Path, events: Events) -> int:
    """Train the job in `directory`; the exit code."""
    try:
        return _run(directory, events)
    except Exception as error:
        if not is_full(error):
            raise
        return FULL


def _run(directory: Path, events: Events) -> int:
    try:
        with _reporting(directory) as report:
            _train(directory, events, report)
    except SondeError as error:
        return _failed(directory, error.code, error.message, error.param)
    except _SLIPS as error:
        traceback.print_exception(error)
        return _failed(directory, "trainer_crashed", _admitted(error), None)
    return 0


@contextmanager
def _reporting(directory: Path) -> Iterator[Report]:
    """A report that is written however the job ends."""
    report = Report()
    try:
        yield report
    finally:
        (directory / "report.json").write_bytes(report.to_bytes())
        (directory / "report.md").write_text(report.to_markdown(), encoding="utf-8")


def _train(directory: Path, events: Events, report: Report) -> None:
    phase(events, "validating_files")
    job = read_job(directory)
    settings = parse(job.task, job.hyperparameters)
    if isinstance(settings, SensorAnomalyHyperparameters | ForecastHyperparameters):
        (directory / "result").mkdir(exist_ok=True)
        bench = SensorContext(job, directory, events, report)
        outcome = (
            forecast.train(bench, settings)
            if isinstance(settings, ForecastHyperparameters)
            else sensor_anomaly.train(bench, settings)
        )
        write_json(directory / RESULT, _result(job, outcome, SENSOR_VERSION))
        return
    parts = read_split(job, settings)
    emit(events, f"{len(parts.train)} rows to train on, {len(parts.held_out)} held out")
    context = _open(directory, job, events, report)
    check_rows(context, parts)
    phase(events, "running")
    outcome = _with_encoder(context, _recipe(settings)(context, parts))
    report.raise_if_failed("outcome")
    write_json(directory / RESULT, _result(job, outcome, context.model.card.version))


def _open(directory: Path, job: TrainingJob, events: Events, report: Report) -> TextContext:
    """Load the encoder where the job is to run, and make room for what it gives."""
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    # Nothing is trained in int8; heads fit what an int8 encoder gives well enough, which their golden inputs then show.
    placement = place(job.device, "float32" if job.dtype == "int8" else job.dtype)
    source = locate(job.model)
    model = load(source, placement)
    emit(events, f"{job.base} on {placement.device}: {placement.reason}")
    cache = EmbeddingCache(job.cache) if job.cache is not None else None
    (directory / "result").mkdir(exist_ok=True)
    return TextContext(job, directory, events, report, source, placement, model, cache, Embedder(model, cache, events))


def _recipe(settings: OfTexts) -> Callable[[TextContext, DataSplit], Outcome]:
    """The recipe for these settings. Those that train a whole model are imported only for their jobs: it takes
    seconds.
    """
    if isinstance(settings, ClassificationHyperparameters):
        return lambda context, parts: classification.train(context, settings, parts)
    if isinstance(settings, TextAnomalyHyperparameters):
        return lambda context, parts: text_anomaly.train(context, settings, parts)
    if isinstance(settings, EmbeddingHyperparameters):
        from models.training.recipes import embedding

        return lambda context, parts: embedding.train(context, settings, parts)
    from models.training.recipes import rerank

    return lambda context, parts: rerank.train(context, settings, parts)


def _with_encoder(context: TextContext, outcome: Outcome) -> Outcome:
    """The outcome with its encoder beside it, where the base is no model that is always served."""
    if not context.job.keep_encoder or outcome.encoder == "own":
        return outcome
    shutil.copytree(context.source.path, context.result / "encoder")
    return replace(outcome, encoder="own")


def _result(job: TrainingJob, outcome: Outcome, base_version: str) -> dict[str, object]:
    incumbent = outcome.incumbent_metrics
    numbers = {} if outcome.sensor is None else {"sensor": dict(outcome.sensor)}
    return numbers | {
        "task": job.task,
        "mode": outcome.mode,
        "encoder": outcome.encoder,
        "base_version": base_version,
        "labels": list(outcome.labels),
        "metrics": dict(outcome.metrics),
        "incumbent_metrics": None if incumbent is None else dict(incumbent),
        "golden": dict(outcome.golden),
        "trained_tokens": outcome.trained_tokens,
    }


def _failed(directory: Path, code: str, message: str, param: str | None) -> int:
    """Write down what the worker then says among the job's events."""
    write_json(directory / ERROR, {"code": code, "message": message, "param": param})
    return FAILED


def _admitted(error: Exception) -> str:
    """A slip of ours as the job's owner is told of it."""
    told = " ".join(f"{type(error).__name__}: {error}".split())
    told = told if len(told) <= _LONGEST else told[:_LONGEST] + "…"
    return f"a fault of Sonde's own, which another attempt would meet again: {told}; the worker's log has the traceback"


@contextmanager
def _event_stream() -> Iterator[TextIO]:
    """Standard output for events alone: what libraries print goes to standard error from here on."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        yield stream


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM outside the tuning loop, which has a handler of its own: nothing to save that the cache has not kept."""
    raise SystemExit(STOPPED)


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m models.training.run DIRECTORY")
    signal.signal(signal.SIGTERM, _stop)
    os.nice(_NICENESS)
    keep_freed_memory()
    with _event_stream() as stream:
        code = run(Path(sys.argv[1]), lines(stream))
    sys.exit(code)


if __name__ == "__main__":
    main()
