"""The rarity of values in a stream, by the highest values of its recent blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Memory = dict[str, Doubles]

BLOCK, BLOCKS = 16, 128
# The tail is fitted to this many of the highest block maxima.
_TAIL = 13
_MIN_TAIL, _MIN_BLOCKS = 3, 9
# A mean excess of less than a tenth is that of a stream without noise, where any trifle would be rare.
_MIN_EXCESS = 0.1
# A few thousand rows cannot resolve anything rarer than once in a million blocks.
MAX_RARITY = 6.0


@dataclass(frozen=True, slots=True)
class BlockTails:
    """The tails of `series` series by the maxima of their last 128 complete blocks of 16 rows.

    Neighbouring rows resemble each other, so a block counts as one value. The tail above the 13th highest maximum is
    taken as exponential (peaks over threshold: Pickands 1975, with shape 0). Values are logarithms, so that it is a
    power law of what was measured.
    """

    series: int

    @property
    def size(self) -> int:
        """The most float64 values that its memory takes."""
        return (BLOCKS + BLOCK) * self.series

    def new_memory(self) -> Memory:
        """The memory before the first row: block maxima, and the rows of the incomplete block."""
        return {"maxima": np.zeros((0, self.series)), "open": np.zeros((0, self.series))}

    def rarity(self, x: Doubles, memory: Memory) -> Doubles:
        """-log10 of the share of blocks with a maximum as high, [n, series] between 0 and 6.

        Updates `memory`.

        0 until 9 blocks are complete.
        """
        waiting = len(memory["open"])
        rows = np.concatenate([memory["open"], x])
        blocks = -(-len(rows) // BLOCK)
        maxima = rows[: len(rows) // BLOCK * BLOCK].reshape(-1, BLOCK, self.series).max(axis=1)
        missing = np.full((BLOCKS - len(memory["maxima"]), self.series), -np.inf)
        history = np.concatenate([missing, memory["maxima"], maxima])
        tails = _fit_tails(np.lib.stride_tricks.sliding_window_view(history, BLOCKS, axis=0)[:blocks])
        memory["open"] = rows[len(maxima) * BLOCK :].copy()
        memory["maxima"] = history[max(len(missing), len(history) - BLOCKS) :].copy()
        start, excess, share = (np.repeat(one, BLOCK, axis=0)[: len(rows)] for one in tails)
        beyond = (rows - start) / excess
        rarity = np.where(beyond > 0, np.minimum(beyond / np.log(10) - np.log10(share), MAX_RARITY), 0.0)
        return np.asarray(rarity[waiting:])


def _fit_tails(windows: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """The start, mean excess and share of blocks of each tail, [blocks, series].

    `windows` [blocks, series, 128] holds maxima, -inf where there is none yet.
    """
    known = np.isfinite(windows).sum(axis=2)
    inside = np.clip((known * _TAIL) // BLOCKS, _MIN_TAIL, _TAIL)
    top = -np.sort(-np.partition(windows, BLOCKS - _TAIL - 1, axis=2)[..., BLOCKS - _TAIL - 1 :], axis=2)
    start = np.take_along_axis(top, inside[..., None], axis=2)[..., 0]
    enough = known >= _MIN_BLOCKS
    start = np.where(enough, start, np.inf)
    sums = np.where(np.arange(_TAIL + 1) < inside[..., None], top, 0.0)
    sums = np.where(np.isfinite(sums), sums, 0.0).sum(axis=2)
    excess = np.where(enough, sums / inside - np.where(enough, start, 0.0), 0.0)
    return start, excess + _MIN_EXCESS, inside / (known + 1)
