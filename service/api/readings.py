"""Readings and timestamps of a request as arrays.

A valid request is converted in one step. Only an invalid one is checked value by value, to name the first fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.counted import counted
from models.metadata import SensorSignature
from models.sensors.missing import count_missing
from models.sensors.model import LARGEST, Readings
from models.sensors.steps import recognise
from models.sensors.timestamps import date_to_seconds, parser_of, to_iso, to_seconds
from service.api.schemas.readings import LATEST_TIME_S
from service.api.schemas.requests import kind_of, shorten_name
from service.errors import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = {int, float}
_CELLS = {*_NUMBERS, type(None)}
# Rows converted at a time, so that other threads get the interpreter's lock in between.
_BLOCK_ROWS = 4096
_SAME_STEP = 0.01


def to_matrix(rows: list[Any], columns: tuple[str, ...], param: str) -> Readings:
    """Rows, or objects with a value a column, as float64 [n, d]; null, and what an object lacks, as NaN.

    Raises InvalidRequest for the first wrong value.
    """
    if set(map(type, rows)) in ({list}, {dict}):
        blocks = [_convert_block(rows[at : at + _BLOCK_ROWS], columns) for at in range(0, len(rows), _BLOCK_ROWS)]
        converted = [block for block in blocks if block is not None]
        if len(converted) == len(blocks):
            return np.concatenate(converted)
    raise _find_fault(rows, columns, param)


def _convert_block(rows: list[Any], columns: tuple[str, ...]) -> Readings | None:
    """Rows of one form as float64 [n, d]; None where a value or the width is wrong."""
    values = _flatten(rows, columns)
    if values is None or not set(map(type, values)) <= _CELLS:
        return None
    # Reads None as NaN, and is faster than np.array, which looks for the values' common dtype first.
    readings = np.fromiter(values, np.float64, len(values)).reshape(len(rows), len(columns))
    return None if (np.abs(readings) > LARGEST).any() else readings


def _flatten(rows: list[Any], columns: tuple[str, ...]) -> list[Any] | None:
    """All values in order; None unless all rows have the right width and names."""
    if isinstance(rows[0], list):
        return list(chain.from_iterable(rows)) if set(map(len, rows)) == {len(columns)} else None
    pick = itemgetter(*columns)
    if set(map(len, rows)) == {len(columns)}:
        with suppress(KeyError):
            return list(map(pick, rows)) if len(columns) == 1 else list(chain.from_iterable(map(pick, rows)))
    known = frozenset(columns)
    if any(not known.issuperset(row) for row in rows):
        return None
    return [row.get(column) for row in rows for column in columns]


def _find_fault(rows: list[Any], columns: tuple[str, ...], param: str) -> InvalidRequest:
    expected = f"expected {len(columns)} numbers ({', '.join(columns)})"
    for index, row in enumerate(rows):
        where = f"{param}[{index}]"
        if isinstance(row, dict):
            _check_names(row, columns, where)
            row = [row.get(column) for column in columns]
        if not isinstance(row, list):
            message = f'{where}: {expected} as a list or an object, got {kind_of(row)}; shape ["n", {len(columns)}]'
            raise InvalidRequest(message, param=where)
        if len(row) != len(columns):
            shape = f'shape ["n", {len(columns)}], dtype float64'
            raise InvalidRequest.at(where, f"{expected}, got {len(row)}; {shape}")
        for column, value in zip(columns, row, strict=True):
            _check_value(value, f"{where}.{column}")
    kinds = {"objects" if isinstance(row, dict) else "lists" for row in rows}
    return InvalidRequest.at(param, f"expected objects or lists throughout, got {' and '.join(sorted(kinds))}")


def _check_names(row: dict[str, Any], columns: tuple[str, ...], where: str) -> None:
    known = frozenset(columns)
    for name in row:
        if name not in known:
            param = f"{where}.{shorten_name(name)}"
            raise InvalidRequest.at(param, f"no such column; the model has {', '.join(columns)}")


def _check_value(value: object, where: str) -> None:
    if value is None:
        return
    if type(value) not in _NUMBERS:
        raise InvalidRequest.at(where, f"expected a number (float64) or null, got {kind_of(value)}")
    if abs(float(value)) > LARGEST:  # type: ignore[arg-type]  # a number by now
        raise InvalidRequest.at(where, f"expected a finite number of at most {LARGEST:g} (float64), got {value}")


def missing_warnings(readings: Readings, signature: SensorSignature, param: str) -> list[str]:
    """A warning for each column of readings [n, d] that lacks values.

    Raises InvalidRequest where more values are missing than the model takes.
    """
    missing = count_missing(readings, signature.columns)
    share = sum(missing.values()) / readings.size
    if share > signature.max_missing:
        most = f"the model takes at most {signature.max_missing:.0%}"
        raise InvalidRequest.at(param, f"{share:.0%} of the values are missing (null, or no such column), {most}")
    median = "the column's median"
    what = median if signature.kind == "records" else f"the value before it, or {median} where there is none"
    of_all = f"of {counted(len(readings), 'value')}"
    one, many = f"{of_all} is missing; it was replaced by {what}", f"{of_all} are missing; each was replaced by {what}"
    return [f"{name}: {counted(count, one, many)}" for name, count in missing.items()]


@dataclass(frozen=True, slots=True)
class FutureTimes:
    """Timestamps of a forecast, their step in words ("month", "3600 s"), and warnings."""

    timestamps: list[str] | list[float]
    step: str
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class TimestampColumn:
    """Timestamps as Unix seconds float64 [n], strictly increasing.

    `as_text`: they came as ISO 8601. `rows` [n] are their rows in the request, where some were dropped.
    """

    seconds: NDArray[np.float64]
    as_text: bool
    rows: NDArray[np.int64] | None = None

    def show(self, seconds: float) -> str | float:
        """A time in the form in which these came."""
        return _to_iso(seconds) if self.as_text else seconds

    def after(self, steps: int, period_s: float | None) -> FutureTimes:
        """The next `steps` timestamps, in the form in which these came.

        The step is that of the calendar which these follow, else `period_s`, else their median step. Raises
        InvalidRequest when none is known, or when the form cannot express a time so late.
        """
        if period_s is None and len(self.seconds) == 1:
            why = "how far apart the steps are is not known: send two or more, or none"
            raise InvalidRequest.at("timestamps", why)
        last, distances = float(self.seconds[-1]), np.diff(self.seconds)
        calendar, step = recognise(self.seconds), period_s if period_s is not None else float(np.median(distances))
        warnings = [] if calendar is not None or _are_multiples(distances, step) else [_irregular(step)]
        try:
            seconds = [last + step * (n + 1) for n in range(steps)] if calendar is None else calendar.after(last, steps)
        except (OverflowError, ValueError):
            raise _too_late(steps) from None
        times = [_step_text(at, number) for number, at in enumerate(seconds, start=1)] if self.as_text else seconds
        return FutureTimes(times, f"{step:g} s" if calendar is None else calendar.name, warnings)


def _step_text(seconds: float, number: int) -> str:
    try:
        return _to_iso(seconds)
    except OverflowError:
        raise _too_late(number) from None


def _too_late(number: int) -> InvalidRequest:
    why = f"step {number} would be after the year 9999, which ISO 8601 cannot say: send Unix seconds, or none"
    return InvalidRequest.at("timestamps", why)


def _are_multiples(distances: NDArray[np.float64], step: float) -> bool:
    """Whether distances are whole steps, within a hundredth of one."""
    return bool((np.abs(distances / step - np.maximum(np.round(distances / step), 1)) <= _SAME_STEP).all())


def _irregular(step: float) -> str:
    return f"timestamps follow no calendar and are not {step:g} s apart: those of the forecast are"


def to_timestamps(values: list[Any], count: int, before: float | None, *, drop_late: bool = False) -> TimestampColumn:
    """A request's timestamps, one a row. `before` is the last one of the call before.

    Raises InvalidRequest for the first wrong one. With `drop_late`, those that are not later than all before them are
    left out instead.
    """
    if len(values) != count:
        expected = f"expected {count}, one a row of series, got {len(values)}"
        raise InvalidRequest.at("timestamps", expected)
    values = _dates_of_digits(values)
    as_text = isinstance(values[0], str)
    seconds = np.array([_to_unix(value, index, as_text=as_text) for index, value in enumerate(values)], np.float64)
    if drop_late:
        return _drop_late(seconds, as_text, before)
    if before is not None and seconds[0] <= before:
        raise _wrong_order(0, seconds[0], before, "the last one of the call before")
    if (at := first_disorder(seconds)) is not None:
        raise _wrong_order(at, seconds[at], float(seconds[at - 1]), "the one before")
    return TimestampColumn(seconds, as_text)


def _drop_late(seconds: NDArray[np.float64], as_text: bool, before: float | None) -> TimestampColumn:
    """Those that are later than all before them. Raises InvalidRequest where none is."""
    earlier = np.concatenate([[-np.inf if before is None else before], seconds[:-1]])
    rows = np.flatnonzero(seconds > np.maximum.accumulate(earlier))
    if not len(rows):
        last = _to_iso(float(before or 0))
        raise InvalidRequest.at("timestamps", f"none is later than the last one of the call before, {last}")
    return TimestampColumn(seconds[rows], as_text, None if len(rows) == len(seconds) else rows)


def first_disorder(seconds: NDArray[np.float64]) -> int | None:
    """The index of the first time that is not later than the one before it."""
    wrong = np.flatnonzero(np.diff(seconds) <= 0)
    return int(wrong[0]) + 1 if len(wrong) else None


def order_error(seconds: float, before: float, what: str) -> str:
    """What is wrong with a time that is not later than `what` before it."""
    how = "repeats" if seconds == before else "is before"
    return f"{_to_iso(seconds)} {how} {what}, {_to_iso(before)}; expected increasing timestamps"


def _to_unix(value: object, index: int, *, as_text: bool) -> float:
    where = f"timestamps[{index}]"
    if as_text and isinstance(value, str):
        if (seconds := _parse_date(value)) is not None:
            return seconds
        raise InvalidRequest.at(where, f"expected ISO 8601 like 2026-11-23T10:00:00Z, got {value[:60]!r}")
    if not as_text and isinstance(value, int | float) and type(value) in _NUMBERS:
        if 0 <= value <= LATEST_TIME_S:  # before the conversion, which a very large integer overflows
            return float(value)
        raise InvalidRequest.at(where, f"expected Unix seconds from 0 to {LATEST_TIME_S:.0f}, got {value}")
    expected = "an ISO 8601 text as the first is" if as_text else "Unix seconds or ISO 8601, all of one form"
    raise InvalidRequest.at(where, f"expected {expected}, got {kind_of(value)}")


def _wrong_order(index: int, seconds: float, before: float, what: str) -> InvalidRequest:
    where = f"timestamps[{index}]"
    return InvalidRequest.at(where, order_error(seconds, before, what))


def _dates_of_digits(values: list[Any]) -> list[Any]:
    """YYYYMMDD and YYYYMMDDHH, as numbers or texts, as ISO 8601; others as they are."""
    if not set(map(type, values)) <= {str, int} or (parse := parser_of(list(map(str, values)))) is to_seconds:
        return values
    try:
        return [to_iso(parse(str(value))) for value in values]
    except ValueError:
        return values  # 20260230 is named as the wrong one


def _parse_date(text: str) -> float | None:
    """A date as Unix seconds; None for another text, and for times outside the years 1 to 9999 in UTC."""
    try:
        seconds = date_to_seconds(text)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds <= LATEST_TIME_S else None  # the last fraction of a second would be rounded up


def _to_iso(seconds: float) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def gap_warnings(
    seconds: Sequence[float] | NDArray[np.float64], period_s: float | None, before: float | None = None
) -> list[str]:
    """A warning when readings are much farther apart than in training.

    `before` is the time of the reading before the first.
    """
    earlier = [] if before is None else [before]
    steps = np.diff(np.concatenate([earlier, seconds]))
    if period_s is None or not len(steps) or steps.max() <= 3 * period_s:
        return []
    longest = int(steps.argmax())
    at = longest - len(earlier)
    which = f"timestamps[{at}] and [{at + 1}]" if at >= 0 else "the last timestamp of the call before and timestamps[0]"
    return [f"{which} are {steps[longest]:g} s apart, the model knows readings every {period_s:g} s: a gap"]
