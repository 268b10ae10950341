"""A job's series divided in time: to fit to, to choose and calibrate by, and the end to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.sensors.base import Readings
from models.training.data.segments import Imputation, Segments, divide_segments, to_segments
from models.training.data.table import Wanted, read_table
from models.training.errors import HyperparameterError, TrainingDataError
from models.training.hyperparameters import PARAM, ForecastHyperparameters
from models.training.job import TrainingJob

# Of the rows that are not held out so many choose and calibrate.
VALIDATION = 0.2
# A context reads four horizons back, unless the longest run is shorter than twelve.
_CONTEXTS, _MOST_OF_RUN = 4, 3
_LEAST_CONTEXT = 4


@dataclass(frozen=True, slots=True)
class SeriesParts:
    """Runs [n, d] of each part; those of the later two begin with what came before them, as context.

    `seen` are the rows not held out, `held_rows` the held-out ones, for the ladder.
    """

    columns: tuple[str, ...]
    context: int
    train: list[Readings]
    validation: list[Readings]
    held_out: list[Readings]
    seen: Segments
    held_rows: Segments
    repairs: Imputation


def divide_series(job: TrainingJob, settings: ForecastHyperparameters) -> SeriesParts:
    """Read the job's files. Raises TrainingDataError for what cannot be used, HyperparameterError for a season
    beyond the context.
    """
    table = read_table(job.training_file, Wanted(settings.columns, settings.timestamp, settings.group))
    runs, repairs = to_segments(table, "series")
    groups = 1 if table.groups is None else len(set(table.groups))
    if job.validation_file is None:
        whole, (seen, held) = runs, divide_segments(runs, groups, settings.held_out)
    else:
        later = read_table(
            job.validation_file, Wanted(table.columns, settings.timestamp, settings.group), param="validation_file"
        )
        seen, (held, _) = runs, to_segments(later, "series", param="validation_file")
        whole = held
    train, validation = divide_segments(seen, groups, VALIDATION)
    context = settings.context if settings.context != "auto" else _context_for(settings.horizon, train)
    _require_season_within(context, settings)
    parts = SeriesParts(
        table.columns,
        context,
        [train.readings[rows] for rows in train.each()],
        with_context(seen, validation, context),
        with_context(whole, held, context),
        seen,
        held,
        repairs,
    )
    _require_long(parts, settings.horizon)
    return parts


def with_context(whole: Segments, part: Segments, context: int) -> list[Readings]:
    """The runs [n, d] of a part of a table, each with up to `context` rows that came before it in its run of the
    whole.
    """
    found = []
    for rows in part.each():
        first = int(np.flatnonzero(whole.lines == part.lines[rows.start])[0])
        begin = int(whole.starts[np.searchsorted(whole.starts, first, side="right") - 1])
        found.append(whole.readings[max(begin, first - context) : first + rows.stop - rows.start])
    return found


def _context_for(horizon: int, train: Segments) -> int:
    longest = max(int(rows.stop - rows.start) for rows in train.each())
    return max(_LEAST_CONTEXT, min(_CONTEXTS * horizon, longest // _MOST_OF_RUN, 4096))


def _require_season_within(context: int, settings: ForecastHyperparameters) -> None:
    """The baseline repeats the context's last season, so that it has to hold one."""
    if settings.season != "auto" and settings.season > context:
        season = settings.season
        message = (
            f"season: expected at most the context, {context} readings, got {season}; set `context` to {season} or more"
        )
        raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.season")


def _require_long(parts: SeriesParts, horizon: int) -> None:
    needed = parts.context + horizon
    named: dict[str, Sequence[Readings]] = {
        "training": parts.train,
        "validation": parts.validation,
        "held-out": parts.held_out,
    }
    for name, runs in named.items():
        longest = max(map(len, runs), default=0)
        if longest < needed:
            message = (
                f"training_file: the {name} part needs a run of context {parts.context} + horizon {horizon} rows, "
                f"the longest has {longest}; send more rows, or lower `horizon` or `context`"
            )
            raise TrainingDataError("too_few_rows", message, "training_file")
