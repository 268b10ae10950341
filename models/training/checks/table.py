"""First rung for numbers: can these readings teach anything, and was the file what it seemed?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from models.training.checks.units import check_units
from models.training.data.segments import LEAST_ROWS, Imputation, Segments
from models.training.report import Finding, Status, named_rows

ENOUGH_ROWS = 500
MAX_MISSING = 0.05
MAX_REPEATED = 0.01
MAX_JITTER = 0.05
MAX_SAME = 0.5
_MOVED = 3.0


def check_table(train: Segments, held_out: Segments, repairs: Imputation) -> Iterator[Finding]:
    """Check readings before anything is trained on them; rows in findings are lines of the training file."""
    yield _rows(train)
    yield from _constant(train)
    yield _missing(train, held_out, repairs)
    if train.times is not None:
        yield from _timestamps(train, held_out, repairs)
    yield _repeated_rows(train)
    if train.normal():  # else the rung has failed, and there is nothing to compare
        yield check_units(train, held_out)
        yield _moved(train, held_out)


def _rows(train: Segments) -> Finding:
    parts = train.normal()
    count, longest = sum(map(len, parts)), max(map(len, parts), default=0)
    enough, where = (count, "in all") if train.kind == "records" else (longest, "in one run")
    told = "" if train.kind == "records" else f"; the longest run has {longest}"
    message = f"{count} normal rows of {len(train.columns)} columns to train on{told}."
    status: Status = "fail" if enough < LEAST_ROWS else "warn" if count < ENOUGH_ROWS else "ok"
    remedy = (
        f"Send more normal rows: at least {LEAST_ROWS} {where}, better some thousands; few rows resolve no small alpha."
    )
    return _finding("rows", status, float(enough), float(LEAST_ROWS), message, remedy)


def _constant(train: Segments) -> Iterator[Finding]:
    still = [name for name, spread in zip(train.columns, np.ptp(train.readings, axis=0), strict=True) if spread == 0]
    if not still:
        yield _finding("constant_columns", "ok", 0.0, 0.0, "Every column varies.")
        return
    status: Status = "fail" if len(still) == len(train.columns) else "warn"
    message = f"{_named(still)} the same value in every row, and can accuse nobody: left out of every score."
    remedy = "Check how the file was made; leave these columns out of `columns`, or send rows in which they vary."
    yield _finding("constant_columns", status, float(len(still)), 0.0, message, remedy)


def _missing(train: Segments, held_out: Segments, repairs: Imputation) -> Finding:
    count = sum(repairs.missing.values())
    share = count / max((len(train) + len(held_out)) * len(train.columns), 1)
    if not count:
        return _finding("missing_values", "ok", 0.0, MAX_MISSING, "No value is missing.")
    worst = max(repairs.missing, key=lambda name: repairs.missing[name])
    message = (
        f"{count} values are missing ({share:.1%}), most in {worst!r} ({repairs.missing[worst]}); each was given the "
        f"last value before it "
        "(records: the column's median)."
    )
    status: Status = "warn" if share > MAX_MISSING else "ok"
    return _finding(
        "missing_values",
        status,
        share,
        MAX_MISSING,
        message,
        "Fill them in, or leave the column out.",
        repairs.missing_lines,
    )


def _timestamps(train: Segments, held_out: Segments, repairs: Imputation) -> Iterator[Finding]:
    total = len(train) + len(held_out)
    share = len(repairs.repeated) / max(total + len(repairs.repeated), 1)
    message = f"{len(repairs.repeated)} rows repeat the timestamp before them, and were left out."
    remedy = "Name the column that tells machines apart in `group`, or take the copies out."
    status: Status = "fail" if share > 0.5 else "warn" if share > MAX_REPEATED else "ok"
    yield _finding("repeated_timestamps", status, share, MAX_REPEATED, message, remedy, repairs.repeated)
    period = "unknown" if repairs.period_s is None else f"{repairs.period_s:g} s"
    message = (
        f"The usual period is {period}; {repairs.jitter:.1%} of the steps differ from it by more than half, and "
        f"{len(repairs.gaps)} silences of more than ten periods begin a new run."
    )
    status = "warn" if repairs.jitter > MAX_JITTER else "ok"
    remedy = "Windows count readings, not seconds: send readings at a steady pace, resampled if need be."
    yield _finding("irregular_timestamps", status, repairs.jitter, MAX_JITTER, message, remedy, repairs.gaps)


def _repeated_rows(train: Segments) -> Finding:
    """Rows that are the row before once more: a logger that hangs."""
    same = np.concatenate([[False], (np.diff(train.readings, axis=0) == 0).all(axis=1)])
    share = float(same.mean())
    message = f"{share:.1%} of the rows are exactly the row before them."
    status: Status = "warn" if share > MAX_SAME else "ok"
    remedy = "A logger that repeats its last value hides faults: send readings only when they are read."
    return _finding(
        "stuck_rows", status, share, MAX_SAME, message, remedy, train.lines[same].tolist() if status != "ok" else ()
    )


def _moved(train: Segments, held_out: Segments) -> Finding:
    """Whether the later part is still where the training part was."""
    normal, later = np.concatenate(train.normal()), held_out.normal()
    if not later:
        return _finding(
            "moved",
            "warn",
            0.0,
            _MOVED,
            "The held-out part has no normal rows.",
            "Hold out more, or send more normal rows.",
        )
    low, high = np.quantile(normal, [0.05, 0.95], axis=0)
    spread = np.where(high > low, (high - low) / 3.29, np.inf)
    away = np.abs(np.median(np.concatenate(later), axis=0) - np.median(normal, axis=0)) / spread
    worst = int(away.argmax())
    message = (
        f"From the training to the held-out part {train.columns[worst]!r} moved most, by {away[worst]:.2g} of "
        f"its spread."
    )
    remedy = "Normal operation changes over time: train on a longer stretch, and expect the drift check to speak."
    return _finding("moved", "warn" if away[worst] > _MOVED else "ok", float(away[worst]), _MOVED, message, remedy)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5]) + (" …" if len(names) > 5 else "")
    return f"{shown} {'has' if len(names) == 1 else 'have'}"


def _finding(
    check: str, status: Status, value: float, threshold: float, message: str, remedy: str = "", rows: Sequence[int] = ()
) -> Finding:
    return Finding("data", check, status, value, threshold, message, remedy if status != "ok" else "", named_rows(rows))
