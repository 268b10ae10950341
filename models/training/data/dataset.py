"""The rows of a job, read from files and divided: to train on, to judge by, and strangers that the detector is to
find.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from models.training.data.baselines import Baseline, majority, word_counts
from models.training.data.readers import MAX_LINE_BYTES, Record, find_format, read_csv, read_jsonl, read_parquet
from models.training.data.row_parser import RowBuilder
from models.training.data.rows import TEXT_COLUMNS, TextRows, columns_of, group_keys
from models.training.errors import TrainingDataError
from models.training.hyperparameters import ClassificationHyperparameters, Hyperparameters, TextAnomalyHyperparameters
from models.training.job import TrainingJob


@dataclass(frozen=True)
class DataSplit:
    """`same_file`: the held-out part was split off the training file. `out_of_scope` are texts known not to belong."""

    train: TextRows
    held_out: TextRows
    out_of_scope: tuple[str, ...]
    same_file: bool

    @cached_property
    def baselines(self) -> tuple[Baseline, ...]:
        """What is to be beaten on the held-out rows, the best last; computed once. Empty without labels to tell
        apart.
        """
        if len(set(self.train.labels or ())) < 2 or not self.held_out.labels:
            return ()
        return majority(self.train, self.held_out), word_counts(self.train, self.held_out)


def divide(job: TrainingJob, settings: Hyperparameters) -> DataSplit:
    """Read the job's files. Raises TrainingDataError for what cannot be used, naming file, line and column."""
    label = _out_of_scope_label(settings)
    train, out_of_scope = _separate_out_of_scope(_read(job, "training_file"), label, "training_file")
    if job.validation_file is None:
        if job.task == "anomaly":
            train = _plain_if_one_class(train)
        kept, held = split(train, held_out=settings.held_out)
        return DataSplit(kept, held, out_of_scope, same_file=True)
    held, more = _separate_out_of_scope(_read(job, "validation_file"), label, "validation_file")
    if job.task == "anomaly":
        train = _plain_if_one_class(train)
        held = _without_labels(held) if train.kind == "plain" else held
    check_classes(train)
    check_validation(train, held)
    return DataSplit(train, held, (*out_of_scope, *more), same_file=False)


def _read(job: TrainingJob, param: str) -> TextRows:
    path = job.training_file if param == "training_file" else job.validation_file
    if path is None:
        raise ValueError(f"{param} is not given")
    return read_rows(path, task=job.task, columns=job.columns, param=param)


def _out_of_scope_label(settings: Hyperparameters) -> str | None:
    if isinstance(settings, ClassificationHyperparameters):
        return settings.out_of_scope_label
    return settings.anomaly_label if isinstance(settings, TextAnomalyHyperparameters) else None


def _separate_out_of_scope(rows: TextRows, label: str | None, param: str) -> tuple[TextRows, tuple[str, ...]]:
    """Rows of the classes, and the texts of the label that is none."""
    if rows.labels is None or label is None:
        return rows, ()
    inside = [index for index, found in enumerate(rows.labels) if found != label]
    out_of_scope = tuple(text for text, found in zip(rows.texts[0], rows.labels, strict=True) if found == label)
    if not inside:
        raise TrainingDataError(
            "no_normal_rows", f"{param}: expected rows of other labels than {label[:60]!r}, got none", param
        )
    return rows.take(inside), out_of_scope


def _plain_if_one_class(rows: TextRows) -> TextRows:
    return _without_labels(rows) if rows.labels is not None and len(set(rows.labels)) == 1 else rows


def _without_labels(rows: TextRows) -> TextRows:
    return replace(rows, kind="plain", labels=None) if rows.labels is not None else rows


MAX_ROWS = 1_000_000
_NO_MAPPING: Mapping[str, str] = MappingProxyType({})
_LISTED = 5


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
    """Read a JSONL, CSV or Parquet file; `columns` maps our column names to the file's, `param` is named in errors.

    Raises TrainingDataError for the first row that cannot be used, or that `task` does not take. Columns that
    nothing reads are named in `TextRows.notes`.
    """
    chosen = find_format(path, format, param)
    builder = RowBuilder(
        columns,
        param=param,
        task=task,
        unit="row" if chosen == "parquet" else "line",
        textual=chosen == "csv",
        max_text=max_line_bytes,
    )
    records: Iterator[Record]
    if chosen == "jsonl":
        records = read_jsonl(path, max_line_bytes=max_line_bytes, param=param)
    elif chosen == "csv":
        records = read_csv(path, max_line_bytes=max_line_bytes, param=param)
    else:
        ours = chain(*(columns_of(kind) for kind in TEXT_COLUMNS), ["messages"], columns.values())
        records = read_parquet(path, wanted=frozenset(ours), max_rows=max_rows, param=param)
    for line, record in records:
        if len(builder) >= max_rows:
            raise TrainingDataError(
                "too_many_rows", f"line {line}: expected at most {max_rows:,} rows, got more", param, line=line
            )
        builder.add(line, record)
    return builder.rows()


def check_classes(rows: TextRows, *, param: str = "training_file") -> None:
    """Raise TrainingDataError unless labelled rows have at least two classes of at least two rows each."""
    if rows.labels is None:
        return
    counts = Counter(rows.labels)
    if len(counts) < 2:
        raise TrainingDataError(
            "one_class", f"{param}: expected at least two labels, got only {rows.labels[0][:60]!r}", param
        )
    rare = [label for label, count in counts.items() if count < 2]
    if rare:
        first = rows.lines[rows.labels.index(rare[0])]
        shown = ", ".join(f"{label[:60]!r}" for label in rare[:_LISTED]) + (
            f" and {len(rare) - _LISTED} more" if len(rare) > _LISTED else ""
        )
        message = f"{param}: expected at least 2 rows a label, got one for {shown} (first on line {first})"
        raise TrainingDataError("too_few_per_class", message, param, line=first)


def check_validation(train: TextRows, validation: TextRows, *, param: str = "validation_file") -> None:
    """Raise TrainingDataError unless a given validation part has the training part's kind of rows and only its
    labels.
    """
    if train.kind != validation.kind:
        expected, got = (" and ".join(columns_of(rows.kind)) for rows in (train, validation))
        message = f"{param}: expected rows of {expected} as in the training file, got {got}"
        raise TrainingDataError("mixed_row_kinds", message, param)
    if train.labels is None or validation.labels is None:
        return
    known = set(train.labels)
    for label, line in zip(validation.labels, validation.lines, strict=True):
        if label not in known:
            message = f"line {line}, column 'label': expected a label that the training file has, got {label[:60]!r}"
            raise TrainingDataError("unknown_labels", message, param, line=line, column="label")


def split(rows: TextRows, *, held_out: float, param: str = "training_file") -> tuple[TextRows, TextRows]:
    """A training and a held-out part, each in file order. Which rows are held out depends on their texts alone.

    So a version that is in service was trained on few of the rows that its successor is judged by (2 to 9 % of them
    where rows were added since); drawn anew each time, the successor would be compared with a model that knows the
    answers. Rows with the same normalised text (anchor, query, pair of sentences) stay on one side. Labelled rows
    are split label by label: each gives about `held_out` (between 0 and 1) of its rows and at least one, unless all
    its rows are one text.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: expected a share between 0 and 1, got {held_out}")
    check_classes(rows, param=param)
    keys = group_keys(rows)
    held: set[str] = set()
    for sizes in _strata(rows, keys).values():
        held.update(_draw(sizes, held_out))
    if not held:
        raise TrainingDataError(
            "too_few_rows", f"{param}: expected at least two different rows to hold one out, got one", param
        )
    kept = [index for index, key in enumerate(keys) if key not in held]
    return rows.take(kept), rows.take([index for index, key in enumerate(keys) if key in held])


def _strata(rows: TextRows, keys: list[str]) -> dict[str, dict[str, int]]:
    """Per stratum (label, or one for all) how many rows each group has; a text under two labels counts for its
    first.
    """
    home: dict[str, str] = {}
    strata: dict[str, dict[str, int]] = {}
    for index, key in enumerate(keys):
        stratum = home.setdefault(key, rows.labels[index] if rows.labels is not None else "")
        groups = strata.setdefault(stratum, {})
        groups[key] = groups.get(key, 0) + 1
    return strata


def _draw(sizes: dict[str, int], share: float) -> list[str]:
    """Groups to hold out: in the order of their digests until the share is reached, at least one, never all.

    Those that would overshoot far stay.
    """
    if len(sizes) < 2:
        return []
    order = sorted(sizes, key=lambda key: hashlib.sha256(key.encode()).digest())
    wanted, count = max(1, round(share * sum(sizes.values()))), 0
    drawn: list[str] = []
    for key in order:
        if count < wanted and count + sizes[key] <= 2 * wanted and len(drawn) < len(order) - 1:
            drawn.append(key)
            count += sizes[key]
    return drawn or [min(order, key=lambda key: sizes[key])]
