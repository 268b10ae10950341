"""A detector of series by the level of the last readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from models.sensors.detectors.command_columns import switch_scale
from models.sensors.detectors.detector import SensorDetector, require_runs, windows

_WINDOW = 15
_BLOCK = 20
# A column's distance is multiplied by its steady share to this power: columns that mostly drift hardly count.
_TRUST_POWER = 2.0
_SMALLEST = 1e-3


class LevelDetector(SensorDetector):
    """The distance of the last 15 readings' mean from normal, by columns' steadiness.

    A share w of each column's variance lies within blocks of 20 readings. The rest is drift from block to block (a
    temperature that follows the weather), which goes on after training. So the detector multiplies the distance by w².
    The score is the 4-norm over the columns, so that many normal columns do not hide one that is far off.
    """

    kind = "level"
    mean: Tensor
    trust: Tensor

    def __init__(self, columns: int, window: int = _WINDOW) -> None:
        super().__init__(columns, window)
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("trust", torch.ones(columns, dtype=torch.float64))

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Measure medians, and each column's trust: its steady share squared."""
        require_runs(runs, self.window)
        x = torch.cat(list(runs))
        self.mean = x.median(dim=0).values
        self.trust = steady_share(runs).clamp(min=_SMALLEST) ** _TRUST_POWER
        distances = torch.cat([self._distances(run) for run in runs])
        self.trust = self.trust / switch_scale(runs, distances, self.trust.mul)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of the last n of readings [n + 14, d]."""
        return self.contributions(x).mean(dim=1).sqrt().sqrt()

    def contributions(self, x: Tensor) -> Tensor:
        """Fourth powers of the columns' distances, [n, d]."""
        return self._distances(x).square().square()

    def settings(self) -> dict[str, Any]:
        """The number of readings in a level."""
        return {"window": self.window}

    def _distances(self, x: Tensor) -> Tensor:
        return (windows(x, self.window).mean(dim=1) - self.mean).abs() * self.trust


def steady_share(runs: Sequence[Tensor], block: int = _BLOCK) -> Tensor:
    """The share of each column's variance within blocks of neighbouring readings, [d].

    1 for constant columns.

    For white noise about 1 - 1/block, for a slow drift near 0. Runs too short for two blocks are cut into halves.
    """
    within, between = [], []
    for run in runs:
        size = max(min(block, len(run) // 2), 1)
        blocks = run[: len(run) // size * size].reshape(-1, size, run.shape[1])
        within.append(blocks.var(dim=1, unbiased=False).mean(dim=0) * len(run))
        between.append(blocks.mean(dim=1).var(dim=0, unbiased=False) * len(run))
    inner, outer = torch.stack(within).sum(dim=0), torch.stack(between).sum(dim=0)
    total = inner + outer
    return torch.where(total > 0, inner / total.clamp(min=1e-300), torch.ones_like(total))
