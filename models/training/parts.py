"""The rows of a job, divided: to train on, to judge by, and strangers that the detector is to find."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from models.training.baselines import Baseline, majority, word_counts
from models.training.data import check_classes, check_validation, read_rows, split
from models.training.errors import TrainingDataError
from models.training.hyperparameters import Anomaly, Classification, Hyperparameters
from models.training.job import Job
from models.training.rows import Rows


@dataclass(frozen=True)
class Parts:
    """`same_file`: the held-out part was split off the training file. `strangers` are texts known not to belong."""

    train: Rows
    held_out: Rows
    strangers: tuple[str, ...]
    same_file: bool

    @cached_property
    def baselines(self) -> tuple[Baseline, ...]:
        """What is to be beaten on the held-out rows, the best last; computed once. Empty without labels to tell apart."""
        if len(set(self.train.labels or ())) < 2 or not self.held_out.labels:
            return ()
        return majority(self.train, self.held_out), word_counts(self.train, self.held_out)


def divide(job: Job, settings: Hyperparameters) -> Parts:
    """Read the job's files. Raises TrainingDataError for what cannot be used, naming file, line and column."""
    label = _stranger_label(settings)
    train, strangers = _apart(_read(job, "training_file"), label, "training_file")
    if job.validation_file is None:
        if job.task == "anomaly":
            train = _plain_if_one_class(train)
        kept, held = split(train, held_out=settings.held_out)
        return Parts(kept, held, strangers, same_file=True)
    held, more = _apart(_read(job, "validation_file"), label, "validation_file")
    if job.task == "anomaly":
        train = _plain_if_one_class(train)
        held = _without_labels(held) if train.kind == "plain" else held
    check_classes(train)
    check_validation(train, held)
    return Parts(train, held, (*strangers, *more), same_file=False)


def _read(job: Job, param: str) -> Rows:
    path = job.training_file if param == "training_file" else job.validation_file
    if path is None:
        raise ValueError(f"{param} is not given")
    return read_rows(path, task=job.task, columns=job.columns, param=param)


def _stranger_label(settings: Hyperparameters) -> str | None:
    if isinstance(settings, Classification):
        return settings.out_of_scope_label
    return settings.anomaly_label if isinstance(settings, Anomaly) else None


def _apart(rows: Rows, label: str | None, param: str) -> tuple[Rows, tuple[str, ...]]:
    """Rows of the classes, and the texts of the label that is none."""
    if rows.labels is None or label is None:
        return rows, ()
    inside = [index for index, found in enumerate(rows.labels) if found != label]
    strangers = tuple(text for text, found in zip(rows.texts[0], rows.labels, strict=True) if found == label)
    if not inside:
        raise TrainingDataError("no_normal_rows", f"{param}: expected rows of other labels than {label[:60]!r}, got none", param)
    return rows.take(inside), strangers


def _plain_if_one_class(rows: Rows) -> Rows:
    return _without_labels(rows) if rows.labels is not None and len(set(rows.labels)) == 1 else rows


def _without_labels(rows: Rows) -> Rows:
    return replace(rows, kind="plain", labels=None) if rows.labels is not None else rows
