"""Faults of a table that show when its columns are read: times that go backwards, and columns without readings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.sensors.missing import MAX_MISSING
from models.sensors.model import Doubles
from models.training.errors import TrainingDataError, data_error

Rows = NDArray[np.int64]


def order_by_group(groups: Sequence[str] | None, count: int) -> tuple[Rows, NDArray[np.bool_]]:
    """Rows by group, in the order of the file, and a mask of each group's first row."""
    if groups is None:
        return np.arange(count), np.arange(count) == 0
    _, place = np.unique(np.array(groups), return_inverse=True)
    order = np.argsort(place, kind="stable").astype(np.int64)
    return order, np.concatenate([[True], np.diff(place[order]) != 0])


def find_backwards(
    times: Doubles, order: Rows, firsts: NDArray[np.bool_], lines: Rows, param: str
) -> Iterator[TrainingDataError]:
    """The fault of the first time [n] that is before that of the row before in its group.

    `order` and `firsts` are those of `order_by_group`.
    """
    steps = np.diff(times[order], prepend=times[order[:1]])
    backwards = np.flatnonzero(~firsts & (steps < 0))
    if len(backwards):
        line, step = int(lines[order[backwards[0]]]), -steps[backwards[0]]
        advice = "sort the rows by time, or name the column of the group in `group`"
        got = f"one {step:g} s earlier; {advice}"
        expected = "a timestamp after that of the row before"
        yield data_error(param, "timestamps_backwards", expected, got, line=line)


def find_mostly_missing(columns: Sequence[str], readings: Doubles, param: str) -> Iterator[TrainingDataError]:
    """The fault of each column of readings [n, d] that is mostly missing."""
    for name, share in zip(columns, np.isnan(readings).mean(axis=0).tolist(), strict=True):
        if share > MAX_MISSING:
            got = f"none in {share:.0%}; leave it out of `columns`"
            yield data_error(param, "mostly_missing", "numbers in most rows", got, column=name)


def raise_all(faults: Sequence[TrainingDataError]) -> None:
    """Raise the first fault, whose message names the others; none where there are none."""
    if faults:
        raise join_faults(faults)


def join_faults(faults: Sequence[TrainingDataError]) -> TrainingDataError:
    """The first fault, whose message then names the others."""
    faults[0].add([fault.message for fault in faults[1:]])
    return faults[0]
