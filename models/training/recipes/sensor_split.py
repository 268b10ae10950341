"""The files of a sensor job as segments to fit to and later segments to judge by."""

from __future__ import annotations

from dataclasses import dataclass

from models.training.data.bound_readings import leave_out
from models.training.data.segments import Imputation, Segments, divide_segments, to_segments
from models.training.data.table import ColumnRoles, read_table
from models.training.hyperparameters import SensorAnomalyHyperparameters
from models.training.job import TrainingJob


@dataclass(frozen=True, slots=True)
class SensorSplit:
    """Segments to fit to, later segments to judge by, and what was repaired in the training file.

    `left_out` counts rows of the training file that are bound to the name.
    """

    train: Segments
    held_out: Segments
    repairs: Imputation
    left_out: int = 0

    @classmethod
    def read(
        cls, job: TrainingJob, settings: SensorAnomalyHyperparameters, bound: Segments | None = None
    ) -> SensorSplit:
        """Read the job's files, without rows of the training file that are `bound` to the name.

        Raises TrainingDataError for files that cannot be used."""
        wanted = ColumnRoles(settings.columns, settings.timestamp, settings.group, settings.label, settings.csv)
        table = read_table(job.training_file, wanted)
        whole, repairs = to_segments(table, settings.kind)
        segments, left_out = leave_out(whole, bound)
        if job.validation_file is None:
            groups = 1 if table.groups is None else len(set(table.groups))
            return cls(*divide_segments(segments, groups, settings.held_out), repairs, left_out)
        wanted = ColumnRoles(table.columns, settings.timestamp, settings.group, settings.label, settings.csv)
        later = read_table(job.validation_file, wanted, param="validation_file")
        return cls(segments, to_segments(later, settings.kind, param="validation_file")[0], repairs, left_out)
