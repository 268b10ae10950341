"""The series of a forecast job, split in time: training, validation, held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.sensors.model import Readings
from models.training.data.job_readings import JobReadings, read_readings
from models.training.data.segments import Segments, divide_segments
from models.training.errors import HyperparameterError, TrainingDataError
from models.training.hyperparameters import PARAM, ForecastHyperparameters
from models.training.job import TrainingJob

# The share of the rows that are not held out; it chooses and calibrates.
VALIDATION = 0.2
# A context is four horizons, and at most a third of the longest segment.
_HORIZONS, _MOST_OF_SEGMENT = 4, 3
_LEAST_CONTEXT, _MOST_CONTEXT = 4, 4096


@dataclass(frozen=True, slots=True)
class SeriesParts:
    """Segments [n, d] of each part, and the `readings` that they are of, of which those to train on are divided again.

    Each segment of `validation` and `held_out` begins with up to `context` rows before its own.
    """

    context: int
    train: list[Readings]
    validation: list[Readings]
    held_out: list[Readings]
    readings: JobReadings


def divide_series(job: TrainingJob, settings: ForecastHyperparameters, bound: Segments | None = None) -> SeriesParts:
    """Read the job's files and split the series, without rows of the training file that are `bound` to the name.

    Raises TrainingDataError for what cannot be used, HyperparameterError for a season beyond the context.
    """
    found = read_readings(job, settings, bound)
    train, validation = divide_segments(found.train, found.groups, VALIDATION)
    context = _choose_context(settings, train)
    parts = SeriesParts(
        context,
        [train.readings[rows] for rows in train.each()],
        _with_context(found.train, validation, context),
        _with_context(found.whole, found.held_out, context),
        found,
    )
    _require_long_segments(parts, settings.horizon, job.validation_file is not None)
    return parts


def _with_context(whole: Segments, part: Segments, context: int) -> list[Readings]:
    """Segments [n, d] of a part, each with up to `context` rows before it."""
    found = []
    for rows in part.each():
        first = int(np.flatnonzero(whole.lines == part.lines[rows.start])[0])
        begin = int(whole.starts[np.searchsorted(whole.starts, first, side="right") - 1])
        found.append(whole.readings[max(begin, first - context) : first + rows.stop - rows.start])
    return found


def _choose_context(settings: ForecastHyperparameters, train: Segments) -> int:
    """The context asked for, or one for the horizon; the baseline needs a season in it."""
    longest = max(int(rows.stop - rows.start) for rows in train.each())
    most = min(_HORIZONS * settings.horizon, longest // _MOST_OF_SEGMENT, _MOST_CONTEXT)
    context = settings.context if settings.context != "auto" else max(_LEAST_CONTEXT, most)
    season = settings.season
    if season != "auto" and season > context:
        expected = f"at most the context, {context} readings"
        message = f"season: expected {expected}, got {season}; set `context` to {season} or more"
        raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.season")
    return context


def _require_long_segments(parts: SeriesParts, horizon: int, validated: bool) -> None:
    """`validated`: the held-out part is a file of its own."""
    needed = parts.context + horizon
    for name, segments in (("training", parts.train), ("validation", parts.validation), ("held-out", parts.held_out)):
        longest = max(map(len, segments), default=0)
        if longest < needed:
            param = "validation_file" if validated and segments is parts.held_out else "training_file"
            message = (
                f"{param}: the {name} part needs a run of context {parts.context} + horizon {horizon} rows, "
                f"the longest has {longest}; send more rows, or lower `horizon` or `context`"
            )
            raise TrainingDataError("too_few_rows", message, param)
