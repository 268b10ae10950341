"""How rare an answer is in a stream whose ways change: against the highest answers of its own recent blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Memory = dict[str, Doubles]

BLOCK, BLOCKS = 16, 128
# So many of the blocks' maxima, from the top, show how fast the tail falls.
_TOP = 13
_LEAST_TOP, _LEAST_KNOWN = 3, 9
# A tail that falls faster than by a tenth is that of a stream without noise, of which a trifle would be news.
_LEAST_EXCESS = 0.1
# Rarer than once in a million blocks nobody can tell from a few thousand rows.
MOST = 6.0


@dataclass(frozen=True, slots=True)
class BlockTails:
    """For each of `series` series the maxima of its last 128 whole blocks of 16 rows: neighbours resemble each
    other, and count as one.

    The tail above the 13th highest maximum is taken as exponential (peaks over threshold: Pickands 1975, with shape
    0); answers are logarithms, so that it is a power law of what was measured.
    """

    series: int

    @property
    def size(self) -> int:
        """The most numbers that its memory takes."""
        return (BLOCKS + BLOCK) * self.series

    def new_memory(self) -> Memory:
        """What is known before the first row."""
        return {"maxima": np.zeros((0, self.series)), "open": np.zeros((0, self.series))}

    def rarity(self, x: Doubles, memory: Memory) -> Doubles:
        """-log10 of the share of blocks with a maximum as high, [n, series] between 0 and 6; 0 until some are known;
        `memory` moves on.
        """
        waiting = len(memory["open"])
        rows = np.concatenate([memory["open"], x])
        blocks = -(-len(rows) // BLOCK)
        maxima = rows[: len(rows) // BLOCK * BLOCK].reshape(-1, BLOCK, self.series).max(axis=1)
        unknown = np.full((BLOCKS - len(memory["maxima"]), self.series), -np.inf)
        history = np.concatenate([unknown, memory["maxima"], maxima])
        start, excess, share = _tails(np.lib.stride_tricks.sliding_window_view(history, BLOCKS, axis=0)[:blocks])
        memory["open"] = rows[len(maxima) * BLOCK :].copy()
        memory["maxima"] = history[max(len(unknown), len(history) - BLOCKS) :].copy()
        start, excess, share = (np.repeat(one, BLOCK, axis=0)[: len(rows)] for one in (start, excess, share))
        beyond = (rows - start) / excess
        with_tail = np.where(beyond > 0, np.minimum(beyond / np.log(10) - np.log10(share), MOST), 0.0)
        return np.asarray(with_tail[waiting:])


def _tails(windows: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Where the tail of each of [blocks, series, 128] maxima starts, its mean excess, and the share of blocks in it,
    [blocks, series].
    """
    known = np.isfinite(windows).sum(axis=2)
    inside = np.clip((known * _TOP) // BLOCKS, _LEAST_TOP, _TOP)
    top = -np.sort(-np.partition(windows, BLOCKS - _TOP - 1, axis=2)[..., BLOCKS - _TOP - 1 :], axis=2)
    start = np.take_along_axis(top, inside[..., None], axis=2)[..., 0]
    enough = known >= _LEAST_KNOWN
    start = np.where(enough, start, np.inf)
    sums = np.where(np.arange(_TOP + 1) < inside[..., None], top, 0.0)
    sums = np.where(np.isfinite(sums), sums, 0.0).sum(axis=2)
    excess = np.where(enough, sums / inside - np.where(enough, start, 0.0), 0.0)
    return start, excess + _LEAST_EXCESS, inside / (known + 1)
