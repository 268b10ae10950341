"""Data checks of readings: can they teach anything, and is the file what it seems?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from models.counted import counted
from models.training.checks.units import check_units
from models.training.checks.wording import name_first, warn_if
from models.training.data.segments import LEAST_ROWS, Imputation, Segments
from models.training.report import Finding, Status

ENOUGH_ROWS = 500
MAX_MISSING = 0.05
MAX_REPEATED = 0.01
MAX_JITTER = 0.05
MAX_STUCK = 0.5
MAX_SHIFT = 3.0
# The middle 90 % of a normal distribution spans this many standard deviations.
_MIDDLE_90 = 3.29
_finding = partial(Finding.of, "data")


def check_table(train: Segments, held_out: Segments, repairs: Imputation) -> Iterator[Finding]:
    """Check readings before training; findings name lines of the training file."""
    if repairs.read_as:
        message = f"The file was read as: {', '.join(repairs.read_as)}."
        yield _finding("read_as", "ok", None, None, message, "If that is wrong, say how it is written in `csv`.")
    yield _check_row_count(train)
    yield _check_constant_columns(train)
    yield _check_missing(train, held_out, repairs)
    if train.times is not None:
        yield _check_repeated_timestamps(train, held_out, repairs)
        yield _check_regularity(repairs)
    yield _check_stuck_rows(train)
    if train.normal():  # without normal rows, the row count has failed already
        yield check_units(train, held_out)
        yield _check_shift(train, held_out)


def _check_row_count(train: Segments) -> Finding:
    runs = [len(run) for run in train.normal()]
    count, longest = sum(runs), max(runs, default=0)
    records = train.kind == "records"
    enough, where = (count, "in all") if records else (longest, "in one run")
    detail = "" if records else f"; the longest run has {longest}"
    message = f"{counted(count, 'normal row')} of {counted(len(train.columns), 'column')} to train on{detail}."
    status: Status = "fail" if enough < LEAST_ROWS else "warn" if count < ENOUGH_ROWS else "ok"
    remedy = f"Send at least {LEAST_ROWS} normal rows {where}."
    if status == "warn":
        remedy = f"Send {ENOUGH_ROWS} normal rows or more: a small alpha needs many."
        return _finding("rows", status, float(count), float(ENOUGH_ROWS), message, remedy)
    return _finding("rows", status, float(enough), float(LEAST_ROWS), message, remedy)


def _check_constant_columns(train: Segments) -> Finding:
    ranges = np.ptp(train.readings, axis=0)
    constant = [name for name, spread in zip(train.columns, ranges, strict=True) if spread == 0]
    if not constant:
        return _finding("constant_columns", "ok", 0.0, 0.0, "Every column varies.")
    status: Status = "fail" if len(constant) == len(train.columns) else "warn"
    verb = "has" if len(constant) == 1 else "have"
    named = name_first([repr(name) for name in constant])
    message = f"{named} {verb} the same value in every row; every score leaves such a column out."
    remedy = "Check how the file was made; leave these columns out of `columns`, or send rows in which they vary."
    return _finding("constant_columns", status, float(len(constant)), 0.0, message, remedy)


def _check_missing(train: Segments, held_out: Segments, repairs: Imputation) -> Finding:
    count = sum(repairs.missing.values())
    if not count:
        return _finding("missing_values", "ok", 0.0, MAX_MISSING, "No value is missing.")
    share = count / max((len(train) + len(held_out)) * len(train.columns), 1)
    worst = max(repairs.missing, key=lambda name: repairs.missing[name])
    missing = f"{counted(count, 'value is', 'values are')} missing ({share:.1%}), most in {worst!r}"
    message = (
        f"{missing} ({repairs.missing[worst]}); the limit is {MAX_MISSING:.0%}. "
        "Each was replaced by the value before it, or by the column's median where there is none (in records always)."
    )
    remedy, lines = "Fill them in, or leave the column out.", repairs.missing_lines
    return _finding("missing_values", warn_if(share > MAX_MISSING), share, MAX_MISSING, message, remedy, lines)


def _check_repeated_timestamps(train: Segments, held_out: Segments, repairs: Imputation) -> Finding:
    repeated = len(repairs.repeated)
    share = repeated / max(len(train) + len(held_out) + repeated, 1)
    message = (
        f"{counted(repeated, 'row')} left out with the timestamp of the row before ({share:.1%}; the limit is "
        f"{MAX_REPEATED:.0%})."
    )
    remedy = "Name the column that tells machines apart in `group`, or remove the copies."
    status: Status = "fail" if share > 0.5 else "warn" if share > MAX_REPEATED else "ok"
    return _finding("repeated_timestamps", status, share, MAX_REPEATED, message, remedy, repairs.repeated)


def _check_regularity(repairs: Imputation) -> Finding:
    period = "unknown" if repairs.period_s is None else f"{repairs.period_s:g} s"
    period = period if repairs.step is None else f"one {repairs.step}"
    silences = counted(
        len(repairs.gaps), "silence of more than ten periods begins", "silences of more than ten periods begin"
    )
    message = (
        f"The usual period is {period}; {repairs.jitter:.1%} of the steps differ from it by more than half (the limit "
        f"is {MAX_JITTER:.0%}). {silences} a new run."
    )
    status = warn_if(repairs.jitter > MAX_JITTER)
    remedy = "Windows count readings, not seconds: send readings at a steady pace, resampled if necessary."
    return _finding("irregular_timestamps", status, repairs.jitter, MAX_JITTER, message, remedy, repairs.gaps)


def _check_stuck_rows(train: Segments) -> Finding:
    """Check for rows that repeat the row before: a logger that hangs."""
    same = np.concatenate([[False], (np.diff(train.readings, axis=0) == 0).all(axis=1)])
    share = float(same.mean())
    message = f"{share:.1%} of the rows equal the row before them; the limit is {MAX_STUCK:.0%}."
    status = warn_if(share > MAX_STUCK)
    remedy = "A logger that repeats its last value hides faults: send a reading only when the sensor was read."
    rows = () if status == "ok" else train.lines[same].tolist()
    return _finding("stuck_rows", status, share, MAX_STUCK, message, remedy, rows)


def _check_shift(train: Segments, held_out: Segments) -> Finding:
    """Check that the medians of the held-out part are near those of the training part."""
    normal, later = np.concatenate(train.normal()), held_out.normal()
    if not later:
        message = "The held-out part has no normal rows."
        return _finding("moved", "warn", 0.0, MAX_SHIFT, message, "Hold out more, or send more normal rows.")
    low, high = np.quantile(normal, [0.05, 0.95], axis=0)
    spread = np.where(high > low, (high - low) / _MIDDLE_90, np.inf)
    shift = np.abs(np.median(np.concatenate(later), axis=0) - np.median(normal, axis=0)) / spread
    column = int(shift.argmax())
    worst = float(shift[column])
    message = (
        f"From the training to the held-out part, {train.columns[column]!r} moved most, by {worst:.2g} of its spread; "
        f"the limit is {MAX_SHIFT:.2g}."
    )
    remedy = "Normal operation changes over time: train on a longer stretch, and expect drift to be reported."
    return _finding("moved", warn_if(worst > MAX_SHIFT), worst, MAX_SHIFT, message, remedy)
