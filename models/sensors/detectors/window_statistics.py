"""A detector of series by the statistics of the last readings: level, spread and roughness of each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from models.covariance import shrunk_covariance
from models.sensors.detectors.command_columns import switch_scale
from models.sensors.detectors.detector import SensorDetector, require_runs
from models.sensors.detectors.level import steady_share
from models.sensors.detectors.moving_moments import moving_means, moving_moments
from models.sensors.detectors.records import inverse_root

_WINDOW = 16
# Readings of a block: what moves from block to block wanders.
_BLOCK = 100
# Spreads are taken as logarithms, with this share of a column's own spread added: a stuck column has none.
_LEAST_SPREAD = 0.05
_SMALLEST = 1e-6
# A wandering mean counts at most a hundredth; the other directions stay above rounding beside it.
_SMALLEST_SHARE = 0.1


class StatisticsDetector(SensorDetector):
    """The Mahalanobis distance of the last 16 readings' statistics from normal.

    The statistics of a column are its mean, the logarithm of its standard deviation, and that of its root mean square
    step. A fault that moves, shakes, smooths or freezes a column shows in them, and a broken relation of two columns in
    their covariance, which is shrunk (Ledoit and Wolf, 2004).

    Only a share w of a column's variance lies within blocks of 100 readings. The rest is a level that wanders, also
    after training. So the variance of a mean is multiplied by 1 / w⁴.
    """

    kind = "statistics"
    center: Tensor
    rate: Tensor
    root: Tensor

    def __init__(self, columns: int, window: int = _WINDOW, block: int = _BLOCK) -> None:
        if window < 2:
            raise ValueError(f"window: expected at least 2 readings, got {window}")
        super().__init__(columns, window)
        self.block = block
        self.register_buffer("center", torch.zeros(3 * columns, dtype=torch.float64))
        self.register_buffer("rate", torch.zeros(3 * columns, dtype=torch.float64))
        self.register_buffer("root", torch.eye(3 * columns, dtype=torch.float64))

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Measure medians, spreads and covariance of the statistics."""
        require_runs(runs, self.window)
        seen = torch.cat([self._statistics(run) for run in runs])
        self.center = seen.median(dim=0).values
        spread = seen.std(dim=0, unbiased=False)
        self.rate = torch.where(spread > _SMALLEST, 1.0 / spread, torch.zeros_like(spread))
        covariance = shrunk_covariance((seen - self.center) * self.rate)
        means = covariance.diagonal()[: self.columns]  # a view
        means *= steady_share(runs, self.block).clamp(min=_SMALLEST_SHARE) ** -4
        self.root = inverse_root(covariance)
        whitened = ((seen - self.center) * self.rate) @ self.root
        scale = self.rate * self.root.diagonal()
        self.root = self.root / switch_scale(runs, whitened, lambda ranges: _range_of_statistics(ranges) * scale)
        return self

    def contributions(self, x: Tensor) -> Tensor:
        """Squared whitened statistics, summed by column, [n, d]."""
        whitened = ((self._statistics(x) - self.center) * self.rate) @ self.root
        return whitened.square().reshape(len(whitened), 3, self.columns).sum(dim=1)

    def settings(self) -> dict[str, Any]:
        """The readings in a window, and in a block."""
        return {"window": self.window, "block": self.block}

    def _statistics(self, x: Tensor) -> Tensor:
        """Means, log spreads and log steps of the windows of readings [n + window - 1, d]: [n, 3 · d]."""
        levels, steps = moving_moments(x, self.window), moving_means(x.diff(dim=0).square(), self.window - 1)
        logs = [(spreads.sqrt() + _LEAST_SPREAD).log() for spreads in (levels.variances, steps)]
        return torch.cat([levels.means, *logs], dim=1)


def _range_of_statistics(ranges: Tensor) -> Tensor:
    """How far means, log spreads and log steps can be apart in columns of these ranges [d]: [3 · d]."""
    logs = [(largest / _LEAST_SPREAD).log1p() for largest in (ranges / 2, ranges)]
    return torch.cat([ranges, *logs])
