"""Forecasts that anybody could make: a model has to beat them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def season_of(series: Tensor, longest: int) -> int | None:
    """The lag of 2 to `longest` steps at which standardised series [n, d] repeat best; None where none repeats (correlation < 0.3).

    From the mean autocorrelation of the columns' differences from a moving level; the lag is a peak of it.
    """
    values = series.double()
    longest = min(longest, len(values) // 3)
    if longest < 3:
        return None
    centred = values - values.mean(dim=0)
    spectrum = torch.fft.rfft(centred, n=2 * len(values), dim=0)
    products = torch.fft.irfft(spectrum.abs().square(), dim=0)[: longest + 2].sum(dim=1)
    correlation = (products / products[0].clamp(min=1e-12)).numpy()
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner >= correlation[:-2]) & (inner > correlation[2:])) + 1
    peaks = peaks[(peaks >= 2) & (correlation[peaks] >= 0.3)]
    return int(peaks[np.argmax(correlation[peaks])]) if len(peaks) else None


def repeat_last(horizon: int) -> Callable[[Tensor], Tensor]:
    """The forecast that nothing changes."""
    return lambda x: x[..., -1:].expand(*x.shape[:-1], horizon)


def repeat_season(season: int, horizon: int) -> Callable[[Tensor], Tensor]:
    """The forecast that the last season comes again."""
    return lambda x: x[..., -season:].repeat(1, 1, -(-horizon // season))[..., :horizon]
