"""A table in segments of readings without gaps, missing values filled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.counted import counted
from models.sensors.missing import carry_forward
from models.sensors.model import Doubles, SensorKind
from models.sensors.steps import recognise
from models.sensors.timestamps import to_iso
from models.training.data.table import Table
from models.training.data.table_faults import find_backwards, find_mostly_missing, order_by_group, raise_all
from models.training.errors import data_error

Rows = NDArray[np.int64]

# A gap of this many usual periods ends a segment.
_GAP_PERIODS = 10.0
# From this number of groups on, whole groups are held out, else the last part of each.
_GROUPS_TO_HOLD_OUT = 5
# Normal rows that a detector needs: of a series in one segment, of records in all.
LEAST_ROWS = 64


@dataclass(frozen=True, slots=True)
class Segments:
    """Readings float64 [n, d], finite, in order.

    `starts` are the first rows of the segments (the first is 0). `lines`, `times`, `labels` [n] and `zone` are as in
    `Table`.
    The order of `records` means nothing.
    """

    columns: tuple[str, ...]
    readings: Doubles
    lines: Rows
    starts: Rows
    times: Doubles | None = None
    labels: NDArray[np.bool_] | None = None
    kind: SensorKind = "series"
    zone: str | None = None

    def __len__(self) -> int:
        return len(self.readings)

    def each(self) -> Iterator[slice]:
        """The rows of each segment."""
        for start, end in zip(self.starts.tolist(), [*self.starts[1:].tolist(), len(self)], strict=True):
            yield slice(start, end)

    def normal(self) -> list[Doubles]:
        """Readings [n, d] between the labelled anomalies, to fit to."""
        return [self.readings[rows] for rows in self.normal_rows()]

    def normal_times(self) -> list[Doubles]:
        """The times of each of `normal`, in seconds since 1970; an empty list where the table has none."""
        return [] if self.times is None else [self.times[rows] for rows in self.normal_rows()]

    def times_of(self, rows: slice) -> Doubles | None:
        """The times of some rows; None where the table has none."""
        return None if self.times is None else self.times[rows]

    def normal_rows(self) -> list[Rows]:
        """The rows of `normal`: an anomaly ends a segment of a series, and is left out of records.

        Small groups of records are joined, so that whole groups can be held out of a fit.
        """
        segments = [np.arange(rows.start, rows.stop) for rows in self.each()]
        labels = self.labels
        if self.kind == "records":
            return join_small(segments if labels is None else [rows[~labels[rows]] for rows in segments])
        return segments if labels is None else [part for rows in segments for part in _normal_parts(rows, labels[rows])]

    def select(self, mask: NDArray[np.bool_]) -> Segments:
        """The rows of a mask [n]; where the row before is left out, a segment begins as well."""
        first = np.zeros(len(self), dtype=np.bool_)
        first[self.starts] = True
        first |= np.concatenate([[True], ~mask[:-1]])
        return replace(
            self,
            readings=self.readings[mask],
            lines=self.lines[mask],
            starts=np.flatnonzero(first[mask]),
            times=None if self.times is None else self.times[mask],
            labels=None if self.labels is None else self.labels[mask],
        )

    def places(self, rows: Rows) -> list[str] | list[int]:
        """The times of rows [n] in ISO 8601 and the file's zone, or their lines where the table has no times."""
        if self.times is None:
            lines: list[int] = self.lines[rows].tolist()
            return lines
        return [to_iso(seconds, self.zone) for seconds in self.times[rows].tolist()]


@dataclass(slots=True)
class Imputation:
    """What was done to a table, for the report: how the file was read, counts, and lines of the file."""

    missing: dict[str, int] = field(default_factory=dict)
    missing_lines: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    jitter: float = 0.0
    period_s: float | None = None
    step: str | None = None  # a calendar's
    read_as: tuple[str, ...] = ()


def to_segments(table: Table, kind: SensorKind, *, param: str = "training_file") -> tuple[Segments, Imputation]:
    """Order by group, cut at gaps, drop repeated timestamps and fill missing values.

    Raises TrainingDataError for timestamps that go backwards within a group, and for columns that are mostly missing.
    """
    imputation = Imputation(read_as=table.read_as)
    order, firsts = order_by_group(table.groups, len(table))
    _require_no_faults(table, order, firsts, param)
    if table.times is not None:
        order, firsts = _cut_at_gaps(table, table.times, order, firsts, imputation)
    readings = table.readings[order]
    missing = np.isnan(readings)
    counts = zip(table.columns, missing.sum(axis=0), strict=True)
    imputation.missing = {name: int(count) for name, count in counts if count}
    imputation.missing_lines = table.lines[order[missing.any(axis=1)]].tolist()
    starts = np.flatnonzero(firsts)
    filled = _impute(readings, starts if kind == "series" else None)
    times = None if table.times is None else table.times[order]
    labels = None if table.labels is None else table.labels[order]
    return Segments(table.columns, filled, table.lines[order], starts, times, labels, kind, table.zone), imputation


def divide_segments(
    segments: Segments, groups: int, held_out: float, *, param: str = "training_file"
) -> tuple[Segments, Segments]:
    """Split in a training part and a later part.

    With five groups or more, the later part is the last groups, else the last rows of each segment.
    """
    ends = [*segments.starts[1:].tolist(), len(segments)]
    if groups >= _GROUPS_TO_HOLD_OUT and len(segments.starts) == groups:
        # At least one group on either side, whatever the share is rounded to.
        kept = ends[min(max(round(groups * (1 - held_out)), 1), groups - 1) - 1]
        held = np.arange(len(segments)) >= kept
    else:
        held = np.zeros(len(segments), dtype=np.bool_)
        for rows in segments.each():
            held[rows.stop - round((rows.stop - rows.start) * held_out) : rows.stop] = True
    if held.all() or not held.any():
        raise data_error(param, "too_few_rows", "rows to train on and to hold out", counted(len(segments), "row"))
    return segments.select(~held), segments.select(held)


def join_small(groups: Sequence[Rows], least: int = LEAST_ROWS) -> list[Rows]:
    """Join groups of fewer than `least` rows with the next one, the last with the one before."""
    found: list[Rows] = []
    for rows in groups:
        if found and len(found[-1]) < least:
            found[-1] = np.concatenate([found[-1], rows])
        else:
            found.append(rows)
    if len(found) > 1 and len(found[-1]) < least:
        found[-2:] = [np.concatenate(found[-2:])]
    return [rows for rows in found if len(rows)]


def _require_no_faults(table: Table, order: Rows, firsts: NDArray[np.bool_], param: str) -> None:
    backwards = () if table.times is None else find_backwards(table.times, order, firsts, table.lines, param)
    raise_all([*backwards, *find_mostly_missing(table.columns, table.readings, param)])


def _cut_at_gaps(
    table: Table, times: Doubles, order: Rows, firsts: NDArray[np.bool_], imputation: Imputation
) -> tuple[Rows, NDArray[np.bool_]]:
    """Rows without repeated timestamps, and a mask of the first row of each segment."""
    steps = np.diff(times[order], prepend=times[order[:1]])
    inside = ~firsts
    repeated = inside & (steps == 0)
    imputation.repeated = table.lines[order[repeated]].tolist()
    order, firsts, steps, inside = order[~repeated], firsts[~repeated], steps[~repeated], inside[~repeated]
    if not inside.any():
        return order, firsts
    period = float(np.median(steps[inside]))
    gaps = inside & (steps > _GAP_PERIODS * period)
    imputation.period_s, imputation.gaps = period, table.lines[order[gaps]].tolist()
    calendar = recognise(max(np.split(times[order], np.flatnonzero(firsts | gaps)[1:]), key=len))
    if calendar is not None:
        imputation.step = calendar.name
    else:
        imputation.jitter = float(np.mean(np.abs(steps[inside & ~gaps] - period) > 0.5 * period))
    return order, firsts | gaps


def _impute(readings: Doubles, starts: Rows | None) -> Doubles:
    """Fill each missing value with the last one in its segment, else with the column's median.

    Without `starts` (records), all are filled with the median.
    """
    missing = np.isnan(readings)
    if not missing.any():
        return readings
    medians = np.nanmedian(readings, axis=0)
    return np.where(missing, medians, readings) if starts is None else carry_forward(readings, starts, medians)


def _normal_parts(rows: Rows, labels: NDArray[np.bool_]) -> list[Rows]:
    edges = np.flatnonzero(np.diff(labels.astype(np.int8))) + 1
    parts, marks = np.split(rows, edges), np.split(labels, edges)
    return [part for part, mark in zip(parts, marks, strict=True) if len(part) and not mark[0]]
