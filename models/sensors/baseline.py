"""The slow part of readings, which wanders on after training and is subtracted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from models.sensors.base import Doubles, Readings
from models.sensors.detectors.command_columns import find_switches
from models.sensors.scaling import RobustScale

# Readings over which a level is forgotten.
_MEMORY = 500
_KEPT = 1 - 1 / _MEMORY
# Spreads that a reading is off its median at most, so that a fault moves the baseline slowly.
_FARTHEST = 3.0
# The baseline goes this many times as far from the medians as it did in training.
_REACH = 2.0


class Baseline(nn.Module):
    """A fading mean of the readings before each one, less the median of training.

    It goes twice as far from the median as it did in training. So a column that did not wander has next to none, and
    a fault that lasts is not learnt. Switches have none. A stream begins where training ended.
    """

    limit: Tensor
    end: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.scale = RobustScale(columns)
        self.register_buffer("limit", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("end", torch.zeros(columns, dtype=torch.float64))

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Measure how far normal runs, each [n, d], wander."""
        x = torch.cat(list(runs))
        self.scale.fit(x)
        means = [self.means(run.cpu().numpy(), np.zeros(x.shape[1])) for run in runs]
        reach = torch.from_numpy(np.abs(np.concatenate(means)).max(axis=0)).to(x.device)
        self.limit = torch.where(find_switches(x), torch.zeros_like(reach), _REACH * reach)
        self.end = torch.from_numpy(means[-1][-1]).to(x.device)
        return self

    def means(self, readings: Readings, before: Doubles) -> Doubles:
        """The fading means [n + 1, d] before each of readings [n, d] and after the last, in spreads.

        `before` [d] is the first of them.
        """
        from scipy.signal import lfilter  # takes a third of a second to import, and few detectors need it

        if not len(readings):
            return before[None]
        center, rate = self.scale.center.cpu().numpy(), self.scale.rate.cpu().numpy()
        scaled = ((readings - center) * rate).clip(-_FARTHEST, _FARTHEST)
        after, _ = lfilter([1 - _KEPT], [1.0, -_KEPT], scaled, axis=0, zi=_KEPT * before[None])
        return np.concatenate([before[None], after])

    def subtract(self, readings: Readings, means: Doubles) -> Readings:
        """Readings [n, d] less the baseline, by the means [n, d] before them."""
        rate, limit = self.scale.rate.cpu().numpy(), self.limit.cpu().numpy()
        spread = np.divide(1.0, rate, out=np.zeros_like(rate), where=rate > 0)
        centred: Readings = readings - means.clip(-limit, limit) * spread
        return centred

    def forward(self, run: Tensor) -> Tensor:
        """A run [n, d] of training, less the baseline."""
        readings = run.cpu().numpy()
        means = self.means(readings, np.zeros(readings.shape[1]))
        return torch.from_numpy(self.subtract(readings, means[:-1])).to(run.device)
