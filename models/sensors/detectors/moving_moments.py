"""Means and variances of every window of readings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Of every window of `size` readings: means [n, d] and variances [n, d]."""

    means: Tensor
    variances: Tensor
    size: int


def moving_means(x: Tensor, window: int) -> Tensor:
    """Means [n, d] of the windows of readings [n + window - 1, d], as those of `moving_moments`."""
    if window == 1:
        return x
    size = window // 2
    half = moving_means(x, size)
    whole = torch.lerp(half[:-size], half[size:], 0.5)
    return torch.lerp(whole[:-1], x[2 * size :], 1 / window) if window % 2 else whole


def moving_moments(x: Tensor, window: int) -> Moments:
    """Means and variances of the windows of readings [n + window - 1, d].

    Windows of half the size are merged, so that one of 16 costs four steps. No digits are lost at high levels, and a
    window's moments depend on its own readings alone (Chan, Golub and LeVeque, 1983).
    """
    single = Moments(x, torch.zeros_like(x), 1)
    if window == 1:
        return single
    half = moving_moments(x, window // 2)
    whole = _merged(half, half)
    return _merged(whole, single) if window % 2 else whole


def _merged(first: Moments, second: Moments) -> Moments:
    """Moments of windows of `first`, each with the window of `second` that follows it."""
    size = first.size + second.size
    share = second.size / size
    after = second.means[first.size :]
    before = first.means[: len(after)]
    step = after - before
    variances = torch.lerp(first.variances[: len(after)], second.variances[first.size :], share)
    variances.addcmul_(step, step, value=share * (1 - share))
    return Moments(before.add(step, alpha=share), variances, size)
