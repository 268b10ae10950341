"""The texts of a job: read from its files and split, with the out-of-scope texts apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from models.training.data.baselines import Baseline, majority, word_counts
from models.training.data.file_format import find_format
from models.training.data.file_reader import MAX_LINE_BYTES, MAX_ROWS, FileReader
from models.training.data.row_layout import CHAT_COLUMN
from models.training.data.row_parser import RowParser
from models.training.data.row_split import check_classes, check_validation, split_rows
from models.training.data.rows import TEXT_COLUMNS, TextRows, columns_of
from models.training.errors import data_error, quote
from models.training.hyperparameters import ClassificationHyperparameters, Hyperparameters, TextAnomalyHyperparameters
from models.training.job import TrainingJob

_NO_MAPPING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class DataSplit:
    """The parts of a job's rows; `same_file`: both come from the training file."""

    train: TextRows
    held_out: TextRows
    out_of_scope: tuple[str, ...]
    same_file: bool

    @cached_property
    def baselines(self) -> tuple[Baseline, ...]:
        """Baselines on the held-out rows, the best last, computed once; none without two labels."""
        if len(set(self.train.labels or ())) < 2 or not self.held_out.labels:
            return ()
        return majority(self.train, self.held_out), word_counts(self.train, self.held_out)


def read_split(job: TrainingJob, settings: Hyperparameters) -> DataSplit:
    """Read the job's files and split the rows.

    Raises TrainingDataError for what cannot be used, naming file, line and column.
    """
    label = _out_of_scope_label(settings)
    train, out_of_scope = _read_part(job, label, job.training_file, "training_file")
    plain = job.task == "anomaly" and len(set(train.labels or ())) < 2
    train = _without_labels(train) if plain else train
    if job.validation_file is None:
        kept, held = split_rows(train, held_out=settings.held_out)
        return DataSplit(kept, held, out_of_scope, same_file=True)
    held, more = _read_part(job, label, job.validation_file, "validation_file")
    held = _without_labels(held) if plain else held
    check_classes(train)
    check_validation(train, held)
    return DataSplit(train, held, (*out_of_scope, *more), same_file=False)


def read_rows(
    path: Path,
    *,
    task: str | None = None,
    format: str | None = None,  # noqa: A002 - the word that users read
    columns: Mapping[str, str] = _NO_MAPPING,
    max_rows: int = MAX_ROWS,
    max_line_bytes: int = MAX_LINE_BYTES,
    param: str = "training_file",
) -> TextRows:
    """Read a JSONL, CSV or Parquet file of texts.

    `columns` maps our column names to the file's; errors name `param`. Raises TrainingDataError for the first row
    that cannot be used, or that `task` does not take. `TextRows.notes`
    names the columns that are not used.
    """
    reader = FileReader(path, find_format(path, format, param), param, max_rows, max_line_bytes)
    parser = RowParser(reader, columns, task)
    ours = chain(*(columns_of(kind) for kind in TEXT_COLUMNS), [CHAT_COLUMN], columns.values())
    for line, record in reader.records(wanted=frozenset(ours)):
        parser.add(line, record)
    return parser.rows()


def _read_part(job: TrainingJob, label: str | None, path: Path, param: str) -> tuple[TextRows, tuple[str, ...]]:
    """A file's rows of the classes, and its texts of the out-of-scope label."""
    rows = read_rows(path, task=job.task, columns=job.columns, param=param)
    if rows.labels is None or label is None:
        return rows, ()
    inside = [index for index, found in enumerate(rows.labels) if found != label]
    out_of_scope = tuple(text for text, found in zip(rows.texts[0], rows.labels, strict=True) if found == label)
    if not inside:
        raise data_error(param, "no_normal_rows", f"rows of other labels than {quote(label)}", "none")
    return rows.take(inside), out_of_scope


def _out_of_scope_label(settings: Hyperparameters) -> str | None:
    if isinstance(settings, ClassificationHyperparameters):
        return settings.out_of_scope_label
    return settings.anomaly_label if isinstance(settings, TextAnomalyHyperparameters) else None


def _without_labels(rows: TextRows) -> TextRows:
    return replace(rows, kind="plain", labels=None)
