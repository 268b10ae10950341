"""Running p-values: the share of recent readings that scored at least as high."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Memory = dict[str, Doubles]

_BINS = 512


@dataclass(frozen=True, slots=True)
class RunningPValues:
    """Conformal p-values by a histogram of past scores with a half-life in readings.

    Scores lie between 0 and `highest`, in 512 bins. They are compared with the blocks of `block` readings that were
    complete before. There, `rows_a_score` neighbouring readings count as one score. With n such scores
    p = (1 + n · share of the scores ≥ s) / (1 + n).
    """

    highest: float
    block: int
    half_life_rows: int = 5000
    rows_a_score: int = 8

    @property
    def size(self) -> int:
        """The most float64 values that its memory takes."""
        return _BINS + self.block

    def new_memory(self) -> Memory:
        """The memory before the first score: counts by bin, and the bins of the incomplete block."""
        return {"counts": np.zeros(_BINS), "uncounted": np.zeros(0)}

    def p_values(self, scores: Doubles, memory: Memory) -> Doubles:
        """P-values float64 [n] in (0, 1] of scores [n]; updates `memory`."""
        waiting = len(memory["uncounted"])
        bins = np.concatenate([memory["uncounted"], self._bins(scores)]).astype(np.int64)
        p_values, counts = np.empty(len(bins)), memory["counts"]
        for start in range(0, len(bins), self.block):
            part = bins[start : start + self.block]
            p_values[start : start + self.block] = self._by_bin(counts)[part]
            if len(part) == self.block:
                counts = counts * 0.5 ** (self.block / self.half_life_rows) + np.bincount(part, minlength=_BINS)
        memory["counts"], memory["uncounted"] = counts, bins[len(bins) // self.block * self.block :].astype(np.float64)
        return p_values[waiting:]

    def threshold(self, alpha: float, memory: Memory) -> float | None:
        """The least score with a p-value of at most alpha; None when there is none."""
        bins = np.flatnonzero(self._by_bin(memory["counts"]) <= alpha)
        return float(bins[0] * self.highest / _BINS) if len(bins) else None

    def calibrated_on(self, memory: Memory) -> int:
        """The number of scores behind the p-values."""
        return round(float(memory["counts"].sum()) / self.rows_a_score)

    def _bins(self, scores: Doubles) -> Doubles:
        return np.clip(np.floor(scores * (_BINS / self.highest)), 0, _BINS - 1)

    def _by_bin(self, counts: Doubles) -> Doubles:
        """The p-value of each bin: all scores of the bin itself count as higher."""
        scores = np.cumsum(counts[::-1])[::-1] / self.rows_a_score
        return np.asarray((1 + scores) / (1 + scores[0]))  # `counts.sum()` rounds otherwise, and p would pass 1
