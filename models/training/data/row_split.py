"""The split of rows in a training and a held-out part, and what both parts need."""

from __future__ import annotations

import hashlib
from collections import Counter

from models.training.data.rows import TextRows, columns_of, group_keys
from models.training.errors import TrainingDataError, data_error, quote

_MAX_LISTED = 5


def check_classes(rows: TextRows, *, param: str = "training_file") -> None:
    """Raise TrainingDataError unless there are two classes of two rows or more."""
    if rows.labels is None:
        return
    counts = Counter(rows.labels)
    if len(counts) < 2:
        raise data_error(param, "one_class", "at least two labels", f"only {quote(rows.labels[0])}")
    rare = [label for label, count in counts.items() if count < 2]
    if rare:
        first = rows.lines[rows.labels.index(rare[0])]
        more = f" and {len(rare) - _MAX_LISTED} more" if len(rare) > _MAX_LISTED else ""
        listed = ", ".join(map(quote, rare[:_MAX_LISTED])) + more
        message = f"{param}: expected at least 2 rows a label, got one for {listed} (first on line {first})"
        raise TrainingDataError("too_few_per_class", message, param, line=first)


def check_validation(train: TextRows, validation: TextRows, *, param: str = "validation_file") -> None:
    """Raise TrainingDataError where validation has other kinds or labels than training."""
    if train.kind != validation.kind:
        expected, got = (" and ".join(columns_of(rows.kind)) for rows in (train, validation))
        raise data_error(param, "mixed_row_kinds", f"rows of {expected} as in the training file", got)
    known = set(train.labels or ())
    for label, line in zip(validation.labels or (), validation.lines, strict=False):
        if label not in known:
            expected = "a label that the training file has"
            raise data_error(param, "unknown_labels", expected, quote(label), line=line, column="label")


def split_rows(rows: TextRows, *, held_out: float, param: str = "training_file") -> tuple[TextRows, TextRows]:
    """Split in a training and a held-out part, each in file order, by the texts alone.

    A model in service has therefore seen few of the rows that judge its successor: 2 to 9 % of them where rows were
    added since. A new draw for each job would compare the successor with a model that knows the answers.

    Rows with the same normalized text (anchor, query, pair of sentences) stay on one side. Each label gives about
    `held_out` (between 0 and 1) of its rows and at least one, unless all its rows are one text.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: expected a share between 0 and 1, got {held_out}")
    check_classes(rows, param=param)
    keys = group_keys(rows)
    held: set[str] = set()
    for sizes in _group_sizes(rows, keys).values():
        held.update(_draw_groups(sizes, held_out))
    if not held:
        raise data_error(param, "too_few_rows", "at least two different rows to hold one out", "one")
    kept = [index for index, key in enumerate(keys) if key not in held]
    return rows.take(kept), rows.take([index for index, key in enumerate(keys) if key in held])


def _group_sizes(rows: TextRows, keys: list[str]) -> dict[str, dict[str, int]]:
    """Group sizes per label, or of all rows; a text with two labels counts for its first."""
    first_label: dict[str, str] = {}
    sizes: dict[str, dict[str, int]] = {}
    for index, key in enumerate(keys):
        label = first_label.setdefault(key, rows.labels[index] if rows.labels is not None else "")
        groups = sizes.setdefault(label, {})
        groups[key] = groups.get(key, 0) + 1
    return sizes


def _draw_groups(sizes: dict[str, int], share: float) -> list[str]:
    """Groups to hold out, ordered by digest: about the share, at least one, never all.

    Groups that would overshoot to twice the share stay.
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
