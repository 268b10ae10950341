"""Forecasts that anybody could make: a model has to beat them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def repeat_last(horizon: int) -> Callable[[Tensor], Tensor]:
    """The forecast that nothing changes."""
    return lambda x: x[..., -1:].expand(*x.shape[:-1], horizon)


def repeat_season(season: int, horizon: int) -> Callable[[Tensor], Tensor]:
    """The forecast that the last season comes again."""
    return lambda x: x[..., -season:].repeat(1, 1, -(-horizon // season))[..., :horizon]
