"""The texts of a job: read from its files and split, with the out-of-scope texts apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from models.training.data.baselines import Baseline, Floats, coarse_colours, majority, word_counts
from models.training.data.file_format import find_format
from models.training.data.file_limits import MAX_LINE_BYTES, MAX_ROWS
from models.training.data.file_reader import FileReader
from models.training.data.row_layout import CHAT_COLUMN, COLUMN_FAULTS
from models.training.data.row_parser import RowParser
from models.training.data.row_split import check_classes, check_validation, split_rows
from models.training.data.rows import TEXT_COLUMNS, TextRows, columns_of, group_keys, normalized
from models.training.errors import TrainingDataError, data_error, quote
from models.training.hyperparameter_parser import parse
from models.training.hyperparameters import (
    ClassificationHyperparameters,
    Hyperparameters,
    ImageAnomalyHyperparameters,
    ImageClassificationHyperparameters,
    TextAnomalyHyperparameters,
)
from models.training.job import BoundFile, TrainingJob

# Reads the rows of a file by our names of its columns; errors name the parameter.
ReadRows = Callable[[Path, Mapping[str, str], str], TextRows]
_MAX_FAULTS = 100
_NO_MAPPING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LabelledParts:
    """A file's rows of the classes, and its texts of the out-of-scope label."""

    rows: TextRows
    out_of_scope: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows) + len(self.out_of_scope)

    @property
    def keys(self) -> frozenset[str]:
        """What equal rows have in common: the normalized text, anchor or query, or both sentences."""
        return frozenset((*group_keys(self.rows), *map(normalized, self.out_of_scope)))

    def without(self, keys: Collection[str]) -> LabelledParts:
        """The rows with other keys. Raises TrainingDataError where none is left."""
        kept = [index for index, key in enumerate(group_keys(self.rows)) if key not in keys]
        if not kept:
            expected = "rows other than those bound to the model's name"
            raise data_error("training_file", "only_bound_rows", expected, "none")
        others = tuple(text for text in self.out_of_scope if normalized(text) not in keys)
        return LabelledParts(self.rows.take(kept), others)


@dataclass(frozen=True)
class DataSplit:
    """The parts of a job's rows; `same_file`: both come from the training file.

    `left_out` counts rows of the training file that are bound to the name. `colours` gives the coarse colours of
    images.
    """

    train: TextRows
    held_out: TextRows
    out_of_scope: tuple[str, ...]
    same_file: bool
    left_out: int = 0
    colours: Callable[[Sequence[str]], Floats] | None = None

    @cached_property
    def baselines(self) -> tuple[Baseline, ...]:
        """Baselines on the held-out rows, the best last, computed once; none without two labels."""
        if len(set(self.train.labels or ())) < 2 or not self.held_out.labels:
            return ()
        floor = majority(self.train, self.held_out)
        if self.colours is not None:
            return floor, coarse_colours(self.train, self.held_out, self.colours)
        return floor, word_counts(self.train, self.held_out)


def read_split(
    job: TrainingJob, settings: Hyperparameters, bound: LabelledParts | None = None, read: ReadRows | None = None
) -> DataSplit:
    """Read the job's files and split the rows, without rows of the training file that are `bound` to the name.

    `read` reads a file, by default one of texts. Raises TrainingDataError for what cannot be used, naming file, line
    and column.
    """
    read = read or _reader_of_texts(job.task)
    whole = read_parts(job.training_file, job.columns, settings, "training_file", read)
    part = whole if bound is None else whole.without(bound.keys)
    train, out_of_scope, left_out = part.rows, part.out_of_scope, len(whole) - len(part)
    plain = job.task == "anomaly" and (train.inputs == "images" or len(set(train.labels or ())) < 2)
    train = _without_labels(train) if plain else train
    if job.validation_file is None:
        kept, held = split_rows(train, held_out=settings.held_out)
        return DataSplit(kept, held, out_of_scope, same_file=True, left_out=left_out)
    judges = read_parts(job.validation_file, job.columns, settings, "validation_file", read)
    held, more = judges.rows, judges.out_of_scope
    held = _without_labels(held) if plain else held
    check_classes(train)
    check_validation(train, held)
    return DataSplit(train, held, (*out_of_scope, *more), same_file=False, left_out=left_out)


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
    """Read a JSONL, CSV, Parquet or XLSX file of texts.

    `columns` maps our column names to the file's; errors name `param`. Raises TrainingDataError for the first row
    that cannot be used, or that `task` does not take. `TextRows.notes` names the columns that are not used.
    """
    reader = FileReader(path, find_format(path, format, param), param, max_rows, max_line_bytes)
    parser = RowParser(reader, columns, task)
    for line, record in reader.records(wanted=_columns_read(columns)):
        parser.add(line, record)
    return parser.rows()


def find_faults(path: Path, task: str, columns: Mapping[str, str]) -> list[TrainingDataError]:
    """The faults of all rows of a file of texts, up to 100; none where the rows can be read.

    A fault that ends the reading, such as a byte that is not UTF-8, is the last one. So is a fault of the columns:
    all rows below one header share it.
    """
    faults: list[TrainingDataError] = []

    def keep(fault: TrainingDataError) -> None:
        if len(faults) < _MAX_FAULTS:
            faults.append(fault)

    reader = FileReader(path, find_format(path, None, "training_file"), on_fault=keep)
    parser = RowParser(reader, columns, task)
    records = reader.records(wanted=_columns_read(columns))
    while len(faults) < _MAX_FAULTS:
        try:
            parser.add(*next(records))
        except StopIteration:
            break
        except TrainingDataError as error:
            keep(error)
            if error.code in COLUMN_FAULTS and reader.format != "jsonl":
                break
    return faults


def read_bound(file: BoundFile, read: ReadRows | None = None) -> LabelledParts:
    """The texts bound to a name, or what `read` reads. Raises TrainingDataError for what its task cannot read."""
    settings = parse(file.task, file.hyperparameters)
    return read_parts(file.path, file.columns, settings, "file", read or _reader_of_texts(file.task))


def read_parts(
    path: Path, columns: Mapping[str, str], settings: Hyperparameters, param: str, read: ReadRows
) -> LabelledParts:
    """A file's rows, those that are out of scope apart. Raises TrainingDataError."""
    rows, normal = read(path, columns, param), _normal_label(settings)
    label = normal or _out_of_scope_label(settings)
    if rows.labels is None or label is None:
        return LabelledParts(rows)
    inside = [index for index, found in enumerate(rows.labels) if (found == label) is (normal is not None)]
    if not inside:
        expected = f"rows of the label {quote(label)}" if normal else f"rows of other labels than {quote(label)}"
        raise data_error(param, "no_normal_rows", expected, "none")
    outside = sorted(set(range(len(rows))) - set(inside))
    return LabelledParts(rows.take(inside), tuple(rows.texts[0][index] for index in outside))


def _reader_of_texts(task: str) -> ReadRows:
    return lambda path, columns, param: read_rows(path, task=task, columns=columns, param=param)


def _columns_read(columns: Mapping[str, str]) -> frozenset[str]:
    """All columns that rows of texts may have; `columns` maps some of them."""
    return frozenset(chain(*(columns_of(kind) for kind in TEXT_COLUMNS), [CHAT_COLUMN], columns.values()))


def _out_of_scope_label(settings: Hyperparameters) -> str | None:
    if isinstance(settings, ClassificationHyperparameters | ImageClassificationHyperparameters):
        return settings.out_of_scope_label
    anomalies = TextAnomalyHyperparameters | ImageAnomalyHyperparameters
    return settings.anomaly_label if isinstance(settings, anomalies) else None


def _normal_label(settings: Hyperparameters) -> str | None:
    return settings.normal_label if isinstance(settings, ImageAnomalyHyperparameters) else None


def _without_labels(rows: TextRows) -> TextRows:
    return replace(rows, kind="plain", labels=None)
