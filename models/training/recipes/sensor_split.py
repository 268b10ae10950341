"""The files of a sensor job as segments to fit to and later segments to judge by."""

from __future__ import annotations

from dataclasses import dataclass

from models.training.data.job_readings import read_readings
from models.training.data.segments import Imputation, Segments
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
        found = read_readings(job, settings, bound)
        return cls(found.seen, found.held_out, found.repairs, found.left_out)
