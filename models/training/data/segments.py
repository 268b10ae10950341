"""A table as runs: stretches of readings that follow one another in time, filled in, and divided without mixing
times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.sensors.base import SensorKind
from models.training.data.table import Doubles, Table
from models.training.data.timestamps import iso
from models.training.errors import TrainingDataError

Rows = NDArray[np.int64]

# A silence of so many usual periods ends a run.
_SILENCE = 10.0
_MOST_MISSING = 0.5
# With so many groups whole groups are held out, else the last part of each.
_GROUPS_TO_HOLD_OUT = 5
# Normal rows that a detector needs: of a series in one run, of records in all.
LEAST_ROWS = 64


@dataclass(frozen=True, slots=True)
class Segments:
    """Readings float64 [n, d], finite, in order; `starts` are the rows at which a run begins (the first is 0).

    `lines`, `times`, `labels` are the rows' own, as in `Table`. Rows of `records` are no neighbours, whatever the
    order.
    """

    columns: tuple[str, ...]
    readings: Doubles
    lines: Rows
    starts: Rows
    times: Doubles | None = None
    labels: NDArray[np.bool_] | None = None
    kind: SensorKind = "series"

    def __len__(self) -> int:
        return len(self.readings)

    def each(self) -> Iterator[slice]:
        """The rows of each run."""
        for start, end in zip(self.starts.tolist(), [*self.starts[1:].tolist(), len(self)], strict=True):
            yield slice(start, end)

    def normal(self) -> list[Doubles]:
        """Stretches [n, d] of readings that no label calls an anomaly: what may be fitted to."""
        return [self.readings[rows] for rows in self.normal_rows()]

    def normal_rows(self) -> list[Rows]:
        """The rows of these stretches: an anomaly ends a series, and is merely left out of records.

        Small groups of records go together, so that whole groups can be held out of a fit.
        """
        runs = [np.arange(rows.start, rows.stop) for rows in self.each()]
        if self.kind == "records":
            return joined([rows if self.labels is None else rows[~self.labels[rows]] for rows in runs])
        return runs if self.labels is None else [part for rows in runs for part in _unlabelled(rows, self.labels[rows])]

    def places(self, rows: Rows) -> list[str] | list[int]:
        """Where rows (indices [n]) are found again: their times in ISO 8601 where the table has times, else their
        lines.
        """
        if self.times is None:
            lines: list[int] = self.lines[rows].tolist()
            return lines
        return [iso(seconds) for seconds in self.times[rows].tolist()]


@dataclass(slots=True)
class Imputation:
    """What was done to a table, for the report: counts, and lines to look at."""

    missing: dict[str, int] = field(default_factory=dict)
    missing_lines: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    silences: list[int] = field(default_factory=list)
    jitter: float = 0.0
    period_s: float | None = None


def to_segments(table: Table, kind: SensorKind, *, param: str = "training_file") -> tuple[Segments, Imputation]:
    """Order by group, cut at silences, drop repeated timestamps, fill what is missing; and what was done.

    Raises TrainingDataError for timestamps that go backwards within a group, and for columns that are mostly missing.
    """
    repairs = Imputation()
    order, firsts = _by_group(table)
    if table.times is not None:
        order, firsts = _in_time(table, order, firsts, repairs, param)
    readings = table.readings[order]
    _require_present(table, readings, param)
    _note_missing(table, order, readings, repairs)
    starts = np.flatnonzero(firsts)
    filled = _filled(readings, starts if kind == "series" else None)
    times = None if table.times is None else table.times[order]
    labels = None if table.labels is None else table.labels[order]
    return Segments(table.columns, filled, table.lines[order], starts, times, labels, kind), repairs


def divide_segments(
    runs: Segments, groups: int, held_out: float, *, param: str = "training_file"
) -> tuple[Segments, Segments]:
    """The training part, and the later part to judge by: the last runs where there are five groups, else the last
    rows of each run.
    """
    ends = [*runs.starts[1:].tolist(), len(runs)]
    if groups >= _GROUPS_TO_HOLD_OUT and len(runs.starts) == groups:
        # At least one group on either side, whatever the share is rounded to.
        kept = ends[min(max(round(groups * (1 - held_out)), 1), groups - 1) - 1]
        held = np.arange(len(runs)) >= kept
    else:
        held = np.zeros(len(runs), dtype=np.bool_)
        for rows in runs.each():
            held[rows.stop - round((rows.stop - rows.start) * held_out) : rows.stop] = True
    if held.all() or not held.any():
        raise TrainingDataError(
            "too_few_rows", f"{param}: expected rows to train on and to hold out, got {len(runs)} rows", param
        )
    return _chosen(runs, ~held), _chosen(runs, held)


def _chosen(runs: Segments, mask: NDArray[np.bool_]) -> Segments:
    first = np.zeros(len(runs), dtype=np.bool_)
    first[runs.starts] = True
    # Where the row before is left out, a run begins as well.
    first |= np.concatenate([[True], ~mask[:-1]])
    times = None if runs.times is None else runs.times[mask]
    labels = None if runs.labels is None else runs.labels[mask]
    return Segments(
        runs.columns, runs.readings[mask], runs.lines[mask], np.flatnonzero(first[mask]), times, labels, runs.kind
    )


def _by_group(table: Table) -> tuple[Rows, NDArray[np.bool_]]:
    """Rows group by group, in the order of the file, and which of them are the first of their group."""
    if table.groups is None:
        return np.arange(len(table)), np.arange(len(table)) == 0
    _, place = np.unique(np.array(table.groups), return_inverse=True)
    order = np.argsort(place, kind="stable").astype(np.int64)
    return order, np.concatenate([[True], np.diff(place[order]) != 0])


def _in_time(
    table: Table, order: Rows, firsts: NDArray[np.bool_], repairs: Imputation, param: str
) -> tuple[Rows, NDArray[np.bool_]]:
    """Without repeated timestamps, and with a new run after each silence."""
    times = table.times
    if times is None:
        raise ValueError("the table has no times")
    steps = np.diff(times[order], prepend=times[order[:1]])
    inside = ~firsts
    backwards = np.flatnonzero(inside & (steps < 0))
    if len(backwards):
        line = int(table.lines[order[backwards[0]]])
        message = (
            f"line {line}: expected a timestamp after that of the row before, got one {-steps[backwards[0]]:g} s "
            f"earlier; "
            "sort the rows by time, or name the column that tells the runs apart in `group`"
        )
        raise TrainingDataError("timestamps_backwards", message, param, line=line)
    repeated = inside & (steps == 0)
    repairs.repeated = table.lines[order[repeated]].tolist()
    order, firsts, steps, inside = order[~repeated], firsts[~repeated], steps[~repeated], inside[~repeated]
    if not inside.any():
        return order, firsts
    period = float(np.median(steps[inside]))
    silences = inside & (steps > _SILENCE * period)
    repairs.period_s, repairs.silences = period, table.lines[order[silences]].tolist()
    repairs.jitter = float(np.mean(np.abs(steps[inside & ~silences] - period) > 0.5 * period))
    return order, firsts | silences


def _require_present(table: Table, readings: Doubles, param: str) -> None:
    share = np.isnan(readings).mean(axis=0)
    worst = int(share.argmax())
    if share[worst] > _MOST_MISSING:
        name = table.columns[worst]
        message = (
            f"column {name[:60]!r}: expected numbers in most rows, got none in {share[worst]:.0%}; leave it "
            f"out of `columns`"
        )
        raise TrainingDataError("mostly_missing", message, param, column=name)


def _note_missing(table: Table, order: Rows, readings: Doubles, repairs: Imputation) -> None:
    missing = np.isnan(readings)
    repairs.missing = {
        name: int(count) for name, count in zip(table.columns, missing.sum(axis=0), strict=True) if count
    }
    repairs.missing_lines = table.lines[order[missing.any(axis=1)]].tolist()


def _filled(readings: Doubles, starts: Rows | None) -> Doubles:
    """Each missing value as the last one before it in its run, or else the column's median; for records always the
    median.
    """
    missing = np.isnan(readings)
    if not missing.any():
        return readings
    medians = np.nanmedian(readings, axis=0)
    if starts is None:
        return np.where(missing, medians, readings)
    # The row of the last value seen, never before the run's start.
    rows = np.where(missing, -1, np.arange(len(readings))[:, None])
    begins = np.repeat(starts, np.diff([*starts.tolist(), len(readings)]))[:, None]
    last = np.maximum.accumulate(rows, axis=0)
    seen = np.take_along_axis(readings, np.maximum(last, 0), axis=0)
    return np.where(last >= begins, seen, medians)


def _unlabelled(rows: Rows, labels: NDArray[np.bool_]) -> list[Rows]:
    edges = np.flatnonzero(np.diff(labels.astype(np.int8))) + 1
    parts, marks = np.split(rows, edges), np.split(labels, edges)
    return [part for part, mark in zip(parts, marks, strict=True) if len(part) and not mark[0]]


def joined(groups: Sequence[Rows], least: int = LEAST_ROWS) -> list[Rows]:
    """Groups of rows, those of less than so many together with the next, or the last with the one before."""
    found: list[Rows] = []
    for rows in groups:
        if found and len(found[-1]) < least:
            found[-1] = np.concatenate([found[-1], rows])
        else:
            found.append(rows)
    if len(found) > 1 and len(found[-1]) < least:
        found[-2:] = [np.concatenate(found[-2:])]
    return [rows for rows in found if len(rows)]
