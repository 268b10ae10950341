"""The files of a sensor job as segments to fit to and later segments to judge by."""

from __future__ import annotations

from dataclasses import dataclass

from models.training.data.segments import Imputation, Segments, divide_segments, to_segments
from models.training.data.table import ColumnRoles, read_table
from models.training.hyperparameters import SensorAnomalyHyperparameters
from models.training.job import TrainingJob


@dataclass(frozen=True, slots=True)
class SensorSplit:
    """Segments to fit to, later segments to judge by, and what was repaired in the training file."""

    train: Segments
    held_out: Segments
    repairs: Imputation

    @classmethod
    def read(cls, job: TrainingJob, settings: SensorAnomalyHyperparameters) -> SensorSplit:
        """Read the job's files. Raises TrainingDataError for files that cannot be used."""
        wanted = ColumnRoles(settings.columns, settings.timestamp, settings.group, settings.label)
        table = read_table(job.training_file, wanted)
        segments, repairs = to_segments(table, settings.kind)
        if job.validation_file is None:
            groups = 1 if table.groups is None else len(set(table.groups))
            return cls(*divide_segments(segments, groups, settings.held_out), repairs)
        wanted = ColumnRoles(table.columns, settings.timestamp, settings.group, settings.label)
        later = read_table(job.validation_file, wanted, param="validation_file")
        return cls(segments, to_segments(later, settings.kind, param="validation_file")[0], repairs)
