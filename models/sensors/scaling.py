"""Columns scaled to units of their own spread, by robust statistics."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

# The 5 % and 95 % quantiles of a normal distribution are 3.29 standard deviations apart. Quartiles would be more
# robust, but the spread of a coarse gauge, which mostly shows the same two values, would be nearly 0.
_LOW, _HIGH, _DEVIATIONS = 0.05, 0.95, 3.29
# Scaled readings are clipped to this many units, whose square is finite in float32.
_MAX_UNITS = 1e6
# Spread below this share of the level is rounding: float64 has 16 digits.
ROUNDING = 1e-14


class RobustScale(nn.Module):
    """Readings float64 [n, d] → (x - median) / spread, float64 [n, d].

    The spread is the range of the middle 90 % / 3.29, or the standard deviation where 90 % of a column are one value.
    A constant column has `rate` 0, so its scaled readings are 0.
    """

    center: Tensor
    rate: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("rate", torch.zeros(columns, dtype=torch.float64))

    def fit(self, x: Tensor) -> Self:
        """Measure medians and spreads of normal readings [n, d], n ≥ 2."""
        if x.ndim != 2 or len(x) < 2 or x.shape[1] != len(self.center):
            raise ValueError(f"readings: expected shape [n, {len(self.center)}] with n >= 2, got {list(x.shape)}")
        low, middle, high = (_quantile(x, q) for q in (_LOW, 0.5, _HIGH))
        spread = (high - low) / _DEVIATIONS
        least = ROUNDING * middle.abs()
        spread = torch.where(spread > least, spread, x.std(dim=0, unbiased=False))
        self.center = middle
        self.rate = torch.where(spread > least, 1.0 / spread, torch.zeros_like(spread))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Scaled readings, float64 [n, d]."""
        return (x - self.center).mul_(self.rate).clamp_(-_MAX_UNITS, _MAX_UNITS)


def _quantile(x: Tensor, q: float) -> Tensor:
    """The order statistic at `q` of each column, without interpolation."""
    return x.kthvalue(1 + int(q * (len(x) - 1)), dim=0).values
