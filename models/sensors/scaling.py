"""Columns in units of their own spread, by statistics that a few wild readings cannot move."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

# A normal distribution's 5 % and 95 % quantiles are so many standard deviations apart. Quartiles would resist more, but
# of a coarse gauge, which mostly shows the same two values, they give a spread of nearly nothing.
_LOW, _HIGH, _APART = 0.05, 0.95, 3.29
# Beyond so many units nothing is told apart any more; it keeps squares finite in float32.
_FARTHEST = 1e6
# Spread below this share of the level is rounding.
_ROUNDING = 1e-12


class RobustScale(nn.Module):
    """Readings float64 [n, d] → (x - median) / spread, float64 [n, d]; the spread is the range of the middle 90 % /
    3.29.

    Where 90 % of a column are one value, its standard deviation takes that place. A column that never varied says
    nothing: it has `rate` 0 and gives 0.
    """

    center: Tensor
    rate: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("rate", torch.zeros(columns, dtype=torch.float64))

    def fit(self, x: Tensor) -> Self:
        """Medians and spreads of normal readings [n, d], n ≥ 2."""
        if x.ndim != 2 or len(x) < 2 or x.shape[1] != len(self.center):
            raise ValueError(f"readings: expected shape [n, {len(self.center)}] with n >= 2, got {list(x.shape)}")
        low, middle, high = (_quantile(x, q) for q in (_LOW, 0.5, _HIGH))
        spread = (high - low) / _APART
        least = _ROUNDING * middle.abs()
        spread = torch.where(spread > least, spread, x.std(dim=0, unbiased=False))
        self.center = middle
        self.rate = torch.where(spread > least, 1.0 / spread, torch.zeros_like(spread))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Readings in units, float64 [n, d]."""
        return ((x - self.center) * self.rate).clamp(-_FARTHEST, _FARTHEST)


def _quantile(x: Tensor, q: float) -> Tensor:
    """The order statistic at `q` of each column: no interpolation, so that it is a value that occurred."""
    return x.kthvalue(1 + int(q * (len(x) - 1)), dim=0).values
