"""How far a forecast may be off: quantiles of its errors on windows that it was not fitted to, per step and column."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.sensors.forecasting.windows import Windows

# Finer towards the ends, where quantiles are asked for; between two levels is interpolated, 0 and 1 are the extremes
# seen.
LEVELS = (0.0, 0.005, 0.01, 0.02, *(step / 40 for step in range(1, 40)), 0.98, 0.99, 0.995, 1.0)
_LEAST_SCALE = 1e-3


def typical_change(x: Tensor, lag: int) -> Tensor:
    """The mean absolute change over `lag` steps within contexts [n, d, context]: [n, d, 1], never 0.

    Errors are measured in it, so that intervals widen where a series moves more than it used to and narrow where it
    is calm.
    """
    lag = min(lag, x.shape[-1] // 2)
    return (x[..., lag:] - x[..., :-lag]).abs().mean(dim=-1, keepdim=True) + _LEAST_SCALE


class Intervals(nn.Module):
    """Quantiles float32 [levels, d, horizon] of errors, each in the typical change of its context over the horizon.

    They are split-conformal (Vovk, Gammerman, Shafer 2005; scaled as in Lei et al. 2018): level q is the q(m + 1)-th
    smallest error of m calibration windows. Quantiles of one set of errors never cross.
    """

    errors: Tensor

    def __init__(self, columns: int, horizon: int) -> None:
        super().__init__()
        self.register_buffer("errors", torch.zeros(len(LEVELS), columns, horizon))

    @classmethod
    def calibrated(cls, model: nn.Module, windows: Windows) -> Intervals:
        """From windows [m] that the model was not fitted to."""
        made = cls(windows.series.shape[1], windows.horizon)
        with torch.inference_mode():
            errors = torch.cat([(y - model(x)) / typical_change(x, windows.horizon) for x, y in windows.batches()])
        ordered = errors.sort(dim=0).values
        # Interpolated between the neighbours of rank q(m + 1), the extremes where there is none.
        place = (torch.tensor(LEVELS, dtype=torch.float64) * (len(ordered) + 1) - 1).clamp(0, len(ordered) - 1)
        below, share = place.floor().long(), (place - place.floor()).float()[:, None, None]
        above = (below + 1).clamp(max=len(ordered) - 1)
        made.errors = torch.lerp(ordered[below], ordered[above], share).clone()
        return made

    def at(self, quantile: float) -> Tensor:
        """The error [d, horizon] at a quantile between 0 and 1. ValueError elsewhere."""
        if not 0.0 < quantile < 1.0:
            raise ValueError(f"quantile: expected a number between 0 and 1, got {quantile}")
        upper = next(index for index, level in enumerate(LEVELS) if level >= quantile)
        low, high = LEVELS[upper - 1], LEVELS[upper]
        return torch.lerp(self.errors[upper - 1], self.errors[upper], (quantile - low) / (high - low))
