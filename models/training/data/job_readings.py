"""The readings of a job's files as segments, without those that are bound to the name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.training.data.bound_readings import leave_out
from models.training.data.segments import Imputation, Segments, divide_segments, to_segments
from models.training.data.table import ColumnRoles, read_table
from models.training.hyperparameters import ForecastHyperparameters, SensorAnomalyHyperparameters
from models.training.job import TrainingJob


@dataclass(frozen=True, slots=True)
class JobReadings:
    """Segments to train on and later ones to judge by, and what was repaired in the training file.

    `whole` are all segments of the file that the later ones are in. `groups` is the number of groups in the training
    file, and `left_out` that of its rows that are bound to the name.
    """

    train: Segments
    held_out: Segments
    whole: Segments
    repairs: Imputation
    groups: int
    left_out: int


def read_readings(
    job: TrainingJob, settings: SensorAnomalyHyperparameters | ForecastHyperparameters, bound: Segments | None = None
) -> JobReadings:
    """Read the job's files and split them, without rows of the training file that are `bound` to the name.

    Raises TrainingDataError for files that cannot be used.
    """
    roles = ColumnRoles.of(settings)
    table = read_table(job.training_file, roles)
    everything, repairs = to_segments(table, settings.kind)
    whole, left_out = leave_out(everything, bound)
    groups = 1 if table.groups is None else len(set(table.groups))
    if job.validation_file is None:
        return JobReadings(*divide_segments(whole, groups, settings.held_out), whole, repairs, groups, left_out)
    param = "validation_file"
    later = read_table(job.validation_file, replace(roles, columns=table.columns), param=param)
    held_out, _ = to_segments(later, settings.kind, param=param)
    return JobReadings(whole, held_out, held_out, repairs, groups, left_out)
