"""Timestamps of files and requests: ISO 8601 and its relatives, or numbers since 1970 whose size tells their unit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

EXPECTED = (
    "a timestamp within the years 1 to 9999 (ISO 8601, YYYYMMDD, YYYYMMDDHH, or seconds, milliseconds, microseconds or "
    "nanoseconds since 1970)"
)
# The least number of each unit, and its units per second: as seconds, 1e11 would be the year 5138.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
# The years 1 to 9999, the range of datetime.
_FIRST, _END = -62_135_596_800.0, 253_402_300_800.0
# Digits that are a date of the years 1800 to 2199, and optionally an hour.
_DIGITS = re.compile(r"(?:1[89]|2[01])\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[01]\d|2[0-4])?")
_UTC_NAMED = re.compile(r"(?:UTC|GMT|Z)$", re.IGNORECASE)
_MONTH = re.compile(r"\d{4}-\d{2}")
_DAY = 8
_END_OF_DAY = re.compile(r"(?<=\d[T ])24(?=(?::?00){0,2}(?:[.,]0+)?(?:$|[Zz+-]))")


def parser_of(texts: Sequence[str]) -> Callable[[str], float]:
    """The parser of a column's timestamps to seconds since 1970.

    Digits are dates only where all are: 20240101 by itself could be seconds, a column of such dates could not.
    """
    filled = [text.strip() for text in texts if text.strip()]
    dates = bool(filled) and len({len(text) for text in filled}) == 1 and all(map(_DIGITS.fullmatch, filled))
    return _digits_to_seconds if dates else to_seconds


def to_seconds(text: str) -> float:
    """Seconds since 1970, UTC where no zone is given. ValueError for any other text."""
    try:
        number = float(text)
    except ValueError:
        return date_to_seconds(text)
    if not math.isfinite(number):
        raise ValueError(f"expected {EXPECTED}, got {text}")
    return require_in_calendar(number / _per_second(number))


def numbers_to_seconds(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers since 1970 [n], all of one unit, which the largest tells, as seconds float64 [n]."""
    as_floats = numbers.astype(np.float64)
    return as_floats / _per_second(np.abs(as_floats).max(initial=0.0))


def _per_second(number: float) -> float:
    """How many of a number's units a second has, by the number's size."""
    return next((each for least, each in _UNITS if abs(number) >= least), 1.0)


def date_to_seconds(text: str) -> float:
    """ISO 8601, also with slashes, ` UTC` or ` GMT`, or a month alone, as seconds since 1970. Raises ValueError."""
    plain = text.strip().replace("/", "-")
    named = _UTC_NAMED.search(plain)
    plain = _UTC_NAMED.sub("", plain).rstrip()
    moment = from_iso(f"{plain}-01" if _MONTH.fullmatch(plain) else plain)
    if named and moment.tzinfo:
        raise ValueError(f"expected one zone, got {text}")
    return require_in_calendar((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def from_iso(text: str) -> datetime:
    """ISO 8601, in which a day may end at 24:00. Raises ValueError for any other text."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        midnight = _END_OF_DAY.sub("00", text)
        if midnight == text:
            raise
    return datetime.fromisoformat(midnight) + timedelta(days=1)


def require_in_calendar(seconds: float) -> float:
    """The same seconds since 1970; ValueError outside the years 1 to 9999."""
    if not _FIRST <= seconds < _END:
        raise ValueError(f"expected {EXPECTED}, got {seconds:g} seconds since 1970")
    return seconds


def to_iso(seconds: float, zone: str | None = None) -> str:
    """Seconds since 1970 as ISO 8601, in a named zone or UTC."""
    return datetime.fromtimestamp(seconds, UTC if zone is None else ZoneInfo(zone)).isoformat()


def _digits_to_seconds(text: str) -> float:
    """YYYYMMDD or YYYYMMDDHH; an hour 24 ends its day."""
    plain = text.strip()
    day = datetime.strptime(plain[:_DAY], "%Y%m%d").replace(tzinfo=UTC)
    return day.timestamp() + 3600 * int(plain[_DAY:] or 0)
