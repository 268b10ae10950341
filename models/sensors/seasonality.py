"""Seasons of a series: days and weeks for a known period, else the repeating lag."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.sensors.model import Readings

_DAY_S, _WEEK_S = 86_400.0, 604_800.0
_LONGEST_ROWS = 2500
# From this autocorrelation on a series repeats itself.
_MIN_CORRELATION = 0.3


def calendar(period_s: float) -> tuple[int, ...]:
    """A week and a day in rows; lengths below four rows are left out."""
    rows = (round(_WEEK_S / period_s), round(_DAY_S / period_s))
    return tuple(length for length in rows if length >= 4)


def season_s(length: int, period_s: float | None) -> float:
    """The seconds of a season of `length` readings: a week or a day, else its readings at their period (or 1)."""
    if period_s is None:
        return float(length)
    return next((seconds for seconds in (_WEEK_S, _DAY_S) if round(seconds / period_s) == length), length * period_s)


def repeating(readings: Readings, longest: int = _LONGEST_ROWS) -> tuple[int, ...]:
    """The season of readings [n, d] in rows, or an empty tuple."""
    season = find_season(readings, longest)
    return () if season is None else (season,)


def find_season(readings: Readings, longest: int) -> int | None:
    """The lag of 2 to `longest` rows at which readings [n, d] repeat.

    None below an autocorrelation of 0.3.

    It is the highest peak of the columns' mean autocorrelation. The readings must hold three seasons.
    """
    longest = min(longest, len(readings) // 3)
    spread = readings.std(axis=0)
    if longest < 3 or not (spread > 0).any():
        return None
    standard = ((readings - readings.mean(axis=0)) / np.where(spread > 0, spread, 1.0))[:, spread > 0]
    correlation = _autocorrelation(standard, longest + 2)
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner >= correlation[:-2]) & (inner > correlation[2:])) + 1
    peaks = peaks[(peaks >= 2) & (correlation[peaks] >= _MIN_CORRELATION)]
    return int(peaks[np.argmax(correlation[peaks])]) if len(peaks) else None


def _autocorrelation(standard: Readings, lags: int) -> NDArray[np.float64]:
    """The mean over standardised columns [n, d], for lags 0 to `lags` - 1."""
    size = 1 << (2 * len(standard) - 1).bit_length()
    spectrum = np.fft.rfft(standard, size, axis=0)
    products = np.fft.irfft(spectrum * spectrum.conj(), size, axis=0)[:lags].sum(axis=1)
    return np.asarray(products / products[0])
