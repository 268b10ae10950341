"""The readings bound to a name: read as the binding says, and left out of training data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.training.data.segments import Segments, to_segments
from models.training.data.table import ColumnRoles, read_table
from models.training.errors import TrainingDataError, data_error
from models.training.hyperparameter_parser import parse
from models.training.hyperparameters import ForecastHyperparameters, SensorAnomalyHyperparameters
from models.training.job import BoundFile

# Rows of a series without timestamps are the same rows when this many in a row are equal; a machine at rest repeats
# single readings.
_RUN = 8


def read_bound_readings(file: BoundFile) -> Segments:
    """The readings bound to a name. Raises TrainingDataError for a file that its columns do not fit."""
    settings = parse(file.task, file.hyperparameters)
    if not isinstance(settings, SensorAnomalyHyperparameters | ForecastHyperparameters):
        raise TrainingDataError("wrong_row_kind", f"file: expected rows of {file.task}, got readings", "file")
    table = read_table(file.path, ColumnRoles.of(settings), param="file")
    return to_segments(table, settings.kind, param="file")[0]


def leave_out(segments: Segments, bound: Segments | None) -> tuple[Segments, int]:
    """The segments without rows that are bound to the name, and the number of those rows.

    Equal rows have the same readings and, where both have timestamps, the same time. Raises TrainingDataError where no
    row is left.
    """
    if bound is None or segments.columns != bound.columns:
        return segments, 0
    same = _equal_rows(segments, bound)
    if same.all():
        raise data_error("training_file", "only_bound_rows", "rows other than those bound to the model's name", "none")
    return (segments.select(~same), int(same.sum())) if same.any() else (segments, 0)


def _equal_rows(segments: Segments, bound: Segments) -> NDArray[np.bool_]:
    """A mask [n] of the rows of `segments` that `bound` has, too."""
    values, others = segments.readings, bound.readings
    timed = segments.times is not None and bound.times is not None
    if segments.times is not None and bound.times is not None:
        values = np.column_stack([segments.times, values])
        others = np.column_stack([bound.times, others])
    _, numbers = np.unique(np.concatenate([values, others]), axis=0, return_inverse=True)
    run = 1 if timed or segments.kind == "records" else _RUN
    ours, theirs = _number_runs(numbers[: len(values)], numbers[len(values) :], run)
    found = np.isin(ours, theirs)
    same = np.zeros(len(values), np.bool_)
    for offset in range(run):
        same[offset : offset + len(found)] |= found
    return same


def _number_runs(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], run: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the runs of `run` rows that begin at each row; equal runs have equal numbers. `run`: a power of 2."""
    step = 1
    while step < run:
        pairs = [np.column_stack([rows[:-step], rows[step:]]) for rows in (ours, theirs)]
        _, numbers = np.unique(np.concatenate(pairs), axis=0, return_inverse=True)
        ours, theirs = numbers[: len(pairs[0])], numbers[len(pairs[0]) :]
        step *= 2
    return ours, theirs
