"""Timestamps of files: ISO 8601, or numbers since 1970 whose size tells their unit."""

from __future__ import annotations

import math
from datetime import UTC, datetime

EXPECTED = (
    "a timestamp within the years 1 to 9999 (ISO 8601, or seconds, milliseconds, microseconds or nanoseconds "
    "since 1970)"
)
# The least number of each unit, and its units per second: as seconds, 1e11 would be the year 5138.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
# The years 1 to 9999, the range of datetime.
_FIRST, _END = -62_135_596_800.0, 253_402_300_800.0


def to_seconds(text: str) -> float:
    """Seconds since 1970, UTC where no zone is given. ValueError for any other text."""
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return require_in_calendar((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if not math.isfinite(number):
        raise ValueError(f"expected {EXPECTED}, got {text}")
    return require_in_calendar(number / next((each for least, each in _UNITS if abs(number) >= least), 1.0))


def require_in_calendar(seconds: float) -> float:
    """The same seconds since 1970; ValueError outside the years 1 to 9999."""
    if not _FIRST <= seconds < _END:
        raise ValueError(f"expected {EXPECTED}, got {seconds:g} seconds since 1970")
    return seconds


def to_iso(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
