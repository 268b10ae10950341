"""Prediction intervals: quantiles of errors on held-out windows, by step and column."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.sensors.forecasting.windows import Windows

# Finer towards the ends, where requested quantiles usually are. Quantiles between levels are interpolated; 0 and 1 are
# the extremes of the calibration errors.
LEVELS = (0.0, 0.005, 0.01, 0.02, *(step / 40 for step in range(1, 40)), 0.98, 0.99, 0.995, 1.0)
_MIN_CHANGE = 1e-3


def typical_change(x: Tensor, lag: int) -> Tensor:
    """The mean absolute change over `lag` steps in contexts [n, d, context]: [n, d, 1].

    It is the unit of errors, so that intervals are wide where a series moves much and narrow where it is calm.
    """
    lag = min(lag, x.shape[-1] // 2)
    return (x[..., lag:] - x[..., :-lag]).abs().mean(dim=-1, keepdim=True) + _MIN_CHANGE


class Intervals(nn.Module):
    """Quantiles float32 [levels, d, horizon] of errors, in units of the typical change.

    They are split-conformal (Vovk, Gammerman, Shafer 2005; scaled as in Lei et al. 2018): level q is the q(m + 1)-th
    smallest error of m calibration windows. Quantiles of one set of errors never cross.
    """

    errors: Tensor

    def __init__(self, columns: int, horizon: int) -> None:
        super().__init__()
        self.register_buffer("errors", torch.zeros(len(LEVELS), columns, horizon))

    @classmethod
    def calibrated(cls, model: nn.Module, windows: Windows) -> Intervals:
        """Calibrate by windows [m] that the model was not fitted to."""
        made = cls(windows.series.shape[1], windows.horizon)
        with torch.inference_mode():
            errors = torch.cat([(y - model(x)) / typical_change(x, windows.horizon) for x, y in windows.batches()])
        ordered = errors.sort(dim=0).values
        # Interpolated between the neighbours of rank q(m + 1); beyond the ends, the extremes.
        rank = (torch.tensor(LEVELS, dtype=torch.float64) * (len(ordered) + 1) - 1).clamp(0, len(ordered) - 1)
        below, share = rank.floor().long(), (rank - rank.floor()).float()[:, None, None]
        above = (below + 1).clamp(max=len(ordered) - 1)
        made.errors = torch.lerp(ordered[below], ordered[above], share).clone()
        return made

    def at(self, quantile: float) -> Tensor:
        """The error [d, horizon] at a quantile between 0 and 1. Raises ValueError elsewhere."""
        if not 0.0 < quantile < 1.0:
            raise ValueError(f"quantile: expected a number between 0 and 1, got {quantile}")
        upper = next(index for index, level in enumerate(LEVELS) if level >= quantile)
        low, high = LEVELS[upper - 1], LEVELS[upper]
        return torch.lerp(self.errors[upper - 1], self.errors[upper], (quantile - low) / (high - low))
