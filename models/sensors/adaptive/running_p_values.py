"""P-values in a stream that goes on: the share of its own recent readings that scored at least as high."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Memory = dict[str, Doubles]

_BINS = 512
# After so many readings one counts half.
_HALF_LIFE_ROWS = 5000


@dataclass(frozen=True, slots=True)
class RunningPValues:
    """Counts scores between 0 and `highest` in 512 bins, the older the less; neighbours of a block of `block`
    readings count as one.

    p = (1 + blocks · share of the scores ≥ s) / (1 + blocks), as of conformal p-values, by the blocks that were
    whole before.
    """

    highest: float
    block: int

    @property
    def size(self) -> int:
        """The most numbers that its memory takes."""
        return _BINS + self.block

    def new_memory(self) -> Memory:
        """What is known before the first score."""
        return {"counts": np.zeros(_BINS), "uncounted": np.zeros(0)}

    def p_values(self, scores: Doubles, memory: Memory) -> Doubles:
        """P-values float64 [n] in (0, 1] of scores [n]; `memory` moves on."""
        waiting = len(memory["uncounted"])
        bins = np.concatenate([memory["uncounted"], self._bins(scores)]).astype(np.int64)
        p_values, counts = np.empty(len(bins)), memory["counts"]
        for start in range(0, len(bins), self.block):
            part = bins[start : start + self.block]
            p_values[start : start + self.block] = self._by_bin(counts)[part]
            if len(part) == self.block:
                counts = counts * 0.5 ** (self.block / _HALF_LIFE_ROWS) + np.bincount(part, minlength=_BINS)
        memory["counts"], memory["uncounted"] = counts, bins[len(bins) // self.block * self.block :].astype(np.float64)
        return p_values[waiting:]

    def threshold(self, alpha: float, memory: Memory) -> float | None:
        """The least score whose p-value is at most alpha; None when none is."""
        fitting = np.flatnonzero(self._by_bin(memory["counts"]) <= alpha)
        return float(fitting[0] * self.highest / _BINS) if len(fitting) else None

    def blocks(self, memory: Memory) -> int:
        """How many blocks the p-values rest on."""
        return round(float(memory["counts"].sum()) / self.block)

    def _bins(self, scores: Doubles) -> Doubles:
        return np.clip(np.floor(scores * (_BINS / self.highest)), 0, _BINS - 1)

    def _by_bin(self, counts: Doubles) -> Doubles:
        """The p-value of each bin: all scores of the bin itself count as higher."""
        above, blocks = np.cumsum(counts[::-1])[::-1], counts.sum() / self.block
        return np.asarray((1 + above / self.block) / (1 + blocks))
