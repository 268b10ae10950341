"""The data checks of a training file by themselves: all rows that cannot be used, and what the checks find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.training.checks.data import check_data
from models.training.checks.sensor_data import check_table
from models.training.data import dataset, table
from models.training.data.file_format import ARCHIVE
from models.training.data.forecast_split import divide_series
from models.training.data.image_reader import small_reader
from models.training.data.job_readings import JobReadings, read_readings
from models.training.errors import TrainingDataError
from models.training.hyperparameter_parser import parse
from models.training.hyperparameters import (
    IMAGES,
    ForecastHyperparameters,
    Hyperparameters,
    ImageAnomalyHyperparameters,
    ImageClassificationHyperparameters,
    SensorAnomalyHyperparameters,
)
from models.training.job import TrainingJob
from models.training.report import Finding, Report


def check_file(path: Path, task: str, hyperparameters: Mapping[str, Any], columns: Mapping[str, str]) -> Report:
    """The checks that need no model, as a report of one stage.

    Raises HyperparameterError, and TrainingDataError for a file that is not there.
    """
    hyperparameters = with_kind(path, hyperparameters)
    settings = parse(task, hyperparameters)
    if not path.is_file():
        raise TrainingDataError("no_file", f"{path}: expected a file, got {'a folder' if path.exists() else 'none'}")
    job = TrainingJob("check", "", "", task, path, hyperparameters, columns=dict(columns))
    if isinstance(settings, ImageClassificationHyperparameters | ImageAnomalyHyperparameters):
        return _check_images(job, settings)
    report = Report()
    try:
        report.extend(_findings(job, settings))
    except TrainingDataError as first:
        report.extend(map(_finding, _all_faults(job, settings, first)))
    return report


def with_kind(path: Path, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters; those of an archive have the kind of images."""
    kind = {"kind": IMAGES} if path.suffix.lower() == ARCHIVE else {}
    return {**kind, **hyperparameters}


def _check_images(job: TrainingJob, settings: Hyperparameters) -> Report:
    """The same of images, which are decoded to small copies."""
    report = Report()
    with small_reader(job.task) as reader:
        try:
            parts = replace(dataset.read_split(job, settings, read=reader.rows), colours=reader.store.colours)
            findings = check_data(parts.train, parts.held_out, baselines=parts.baselines, same_file=parts.same_file)
            report.extend(findings)
        except TrainingDataError as first:
            faults = reader.faults(job.training_file, job.columns, "training_file")
            report.extend(map(_finding, faults or [first]))
    return report


def _findings(job: TrainingJob, settings: Hyperparameters) -> list[Finding]:
    if isinstance(settings, SensorAnomalyHyperparameters):
        return _check_readings(read_readings(job, settings))
    if isinstance(settings, ForecastHyperparameters):
        return _check_readings(divide_series(job, settings).readings)
    parts = dataset.read_split(job, settings)
    return list(check_data(parts.train, parts.held_out, columns=job.columns, same_file=parts.same_file))


def _check_readings(found: JobReadings) -> list[Finding]:
    return list(check_table(found.train, found.held_out, found.repairs))


def _all_faults(job: TrainingJob, settings: Hyperparameters, first: TrainingDataError) -> list[TrainingDataError]:
    """The faults of all rows, of a table that of each column; else the first, which is about the file."""
    try:
        if isinstance(settings, SensorAnomalyHyperparameters | ForecastHyperparameters):
            return table.find_faults(job.training_file, table.ColumnRoles.of(settings)) or [first]
        return dataset.find_faults(job.training_file, job.task, job.columns) or [first]
    except TrainingDataError:
        return [first]


def _finding(fault: TrainingDataError) -> Finding:
    rows = [] if fault.line is None else [fault.line]
    advice = f"Mend the {'row in the file' if rows else 'file'}, or the settings that say how to read it."
    return Finding.of("data", fault.code, "fail", None, None, fault.message, advice, rows)
