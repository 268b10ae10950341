"""Conformal p-values for autocorrelated scores, which count by independent blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Doubles = NDArray[np.float64]

# Calibration keeps this many evenly spaced order statistics, which resolve p-values of 1e-4.
MOST_KEPT = 10_000
_MOST_LAGS = 2000
# Of the levels that a later stretch may have, and of the scores around one.
_LEVELS, _AROUND = 31, 2000
# Scores below this share of the highest ones count as equal: their logarithms would differ most.
_LEAST_SHARE, _HIGH = 0.01, 0.99
_FEWEST_LEVELS = 2


@dataclass(frozen=True, slots=True)
class BlockedCalibration:
    """Out-of-fold scores float32 [m] of normal readings, worth `blocks` independent ones.

    p = (1 + blocks · share of the scores ≥ s) / (1 + blocks), the conformal p-value with a block in place of a single
    score. For independent scores `blocks` is m, and p equals `models.p_values.conformal_p_values`.

    Scores with a correlation time τ are worth 2m / (1 + τ) blocks, although only m / τ are independent. The p-value of
    independent scores exceeds their share by 1 / (m + 1), half of which pays for gaps between ranks; correlated scores
    fill these gaps. On simulated series (autoregressive, averaged, heavy-tailed) of 100 τ readings the mean
    false-alarm rate is 0.0065 to 0.0090 at an alpha of 0.01. With m / τ it would be 0.001 to 0.005.
    """

    scores: Scores
    blocks: int

    @classmethod
    def of(cls, runs: Sequence[Scores]) -> Self:
        """Calibrate by the scores of runs, each in the order of time."""
        ordered = np.sort(np.concatenate(list(runs)).astype(np.float32))
        if not len(ordered) or not np.isfinite(ordered).all():
            raise ValueError(f"calibration: expected finite scores, at least one, got {len(ordered)}")
        return cls(_thin_out(ordered), max(int(2 * len(ordered) / (1 + correlation_time(runs))), 1))

    @classmethod
    def of_stretches(cls, runs: Sequence[Scores]) -> Self:
        """Calibrate by the scores, above 0, of stretches of time that differ, as later stretches will.

        Logarithms of scores are a stretch's level plus a rest (one-way random effects). Levels of later stretches are
        taken as normal, with the variance that the known ones have beyond what chance gives to means of correlated
        scores. The kept scores are those of level and rest together, without the highest 1 / (1 + blocks) of them, for
        which the 1 in the p-value stands. So p is the share of later scores that are as high, and 1 / (1 + blocks) at
        least. Where stretches do not differ, fewer alarms are lost to short files than with `of`.
        """
        plain = cls.of(runs)
        least = max(_LEAST_SHARE * float(np.quantile(plain.scores, _HIGH)), float(np.finfo(np.float32).tiny))
        logs = [np.log(np.maximum(run.astype(np.float64), least)) for run in runs if len(run)]
        levels = np.array([one.mean() for one in logs])
        middle = float(np.average(levels, weights=[len(one) for one in logs]))
        later = middle + _spread_of_levels(logs, levels, middle) * _normal_quantiles(_LEVELS)
        rests = np.concatenate([one - level for one, level in zip(logs, levels, strict=True)])
        around = np.quantile(rests, (np.arange(_AROUND) + 0.5) / _AROUND)
        made = np.sort(np.exp(later[:, None] + around), axis=None)
        kept = made[: max(round(len(made) * plain.blocks / (1 + plain.blocks)), 1)]
        return cls(_thin_out(kept.astype(np.float32)), plain.blocks)

    def p_values(self, scores: Scores) -> Doubles:
        """P-values float64 [n] in (0, 1] of scores float32 [n]."""
        share = 1.0 - np.searchsorted(self.scores, scores, side="left") / len(self.scores)
        return (1.0 + self.blocks * share) / (1.0 + self.blocks)

    def threshold(self, alpha: float) -> float | None:
        """The least float32 score with a p-value of at most alpha.

        None with too few blocks for any.
        """
        share = (alpha * (1 + self.blocks) - 1) / self.blocks
        if share < -1e-12:
            return None
        exceeding = math.floor(share * len(self.scores) + 1e-9)
        if exceeding >= len(self.scores):
            return float("-inf")
        # Strictly above the next score, which may occur several times.
        return float(np.nextafter(self.scores[len(self.scores) - 1 - exceeding], np.float32(np.inf)))


def _spread_of_levels(logs: Sequence[Doubles], levels: Doubles, middle: float) -> float:
    """The standard deviation of a later stretch's level from `middle`; 0 where chance explains those of the known."""
    count, rows = len(logs), np.array([len(one) for one in logs])
    if count < _FEWEST_LEVELS:
        return 0.0
    seen = float(np.average((levels - middle) ** 2, weights=rows)) * count / (count - 1)
    by_chance = float(np.mean([one.var() for one in logs] / rows)) * correlation_time(logs)
    return math.sqrt(max(seen - by_chance, 0.0) * (1 + 1 / count))


def _normal_quantiles(count: int) -> Doubles:
    """Evenly spaced quantiles of the standard normal distribution [count]."""
    return np.array([NormalDist().inv_cdf((at + 0.5) / count) for at in range(count)])


def correlation_time(runs: Sequence[NDArray[np.floating]]) -> float:
    """The integrated autocorrelation time of runs' scores, in readings; at least 1.

    1 + 2 · the sum of autocorrelations up to the first that is not positive (Sokal: Monte Carlo Methods in Statistical
    Mechanics, 1997). It is that of the scores' ranks, so that single high scores do not dominate, with each run around
    its own mean.
    """
    ranks = _ranked(runs)
    lags = min(max((len(run) for run in runs), default=1) // 2, _MOST_LAGS)
    products, counts = np.zeros(lags + 1), np.zeros(lags + 1)
    for part in ranks:
        reach = min(lags, len(part) - 1) + 1
        products[:reach] += _autocovariance(part - part.mean())[:reach]
        counts[:reach] += len(part) - np.arange(reach)
    if products[0] <= 0:
        return float(max(len(run) for run in runs))
    correlations = products / np.maximum(counts, 1) * counts[0] / products[0]
    over = np.flatnonzero(correlations <= 0)
    end = int(over[0]) if len(over) else len(correlations)
    return float(max(1.0, 1.0 + 2.0 * correlations[1:end].sum()))


def _ranked(runs: Sequence[NDArray[np.floating]]) -> list[Doubles]:
    """Each score's rank among those of all runs."""
    scores = np.concatenate(list(runs))
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return np.split(ranks, np.cumsum([len(run) for run in runs])[:-1])


def _autocovariance(x: Doubles) -> Doubles:
    """Σ x(t) x(t + k) for every k, by the fast Fourier transform."""
    size = 1 << (2 * len(x) - 1).bit_length()
    spectrum = np.fft.rfft(x, size)
    return np.fft.irfft(spectrum * spectrum.conj(), size)[: len(x)]


def _thin_out(ordered: Scores) -> Scores:
    """At most MOST_KEPT evenly spaced order statistics."""
    if len(ordered) <= MOST_KEPT:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, MOST_KEPT).round().astype(np.int64)]
