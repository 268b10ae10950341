"""Detectors of series by the last readings' level, or by a linear forecaster's errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from models.linalg import shrunk_covariance
from models.sensors.detectors.command_columns import switch_scale
from models.sensors.detectors.detector import SensorDetector, require_runs, windows
from models.sensors.detectors.moving_moments import moving_means
from models.sensors.detectors.records import inverse_root

LEVEL_WINDOW = 15
_BLOCK = 20
# A column's distance is multiplied by its steady share to this power: columns that mostly drift hardly count.
_TRUST_POWER = 2.0
_LAGS, _SMOOTH = 16, 8
_RIDGE = 0.01
_SMALLEST = 1e-3
_SMALLEST_SQUARE = 1e-9


class LevelDetector(SensorDetector):
    """The distance of the last 15 readings' mean from normal, by columns' steadiness.

    A share w of each column's variance lies within blocks of 20 readings. The rest is drift from block to block (a
    temperature that follows the weather), which goes on after training. So the distance is multiplied by w². The
    score is the 4-norm over the columns, so that many normal columns do not hide one that is far off.
    """

    kind = "level"
    mean: Tensor
    trust: Tensor

    def __init__(self, columns: int, window: int = LEVEL_WINDOW) -> None:
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


class ResidualDetector(SensorDetector):
    """A linear forecaster's error on the last 8 readings, each from the 16 before.

    The forecaster predicts the step from the last reading by ridge regression on the differences to it (NLinear of
    Zeng et al., 2023, across the columns), so that a new level is no error by itself. The ridge weighs as much as a
    reading for each coefficient of a column, because few readings would else be learnt by heart. Errors are whitened by
    their shrunk covariance; the score is the root of their mean square.
    """

    kind = "residual"
    weight: Tensor
    bias: Tensor
    root: Tensor

    def __init__(self, columns: int, lags: int = _LAGS, smooth: int = _SMOOTH) -> None:
        super().__init__(columns, lags + smooth)
        self.lags, self.smooth = lags, smooth
        self.register_buffer("weight", torch.zeros((lags - 1) * columns, columns, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("root", torch.eye(columns, dtype=torch.float64))

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Solve the ridge regression in closed form, over all windows of all runs."""
        require_runs(runs, self.window)
        pairs = [self._pairs(run) for run in runs]
        past, step = torch.cat([one for one, _ in pairs]), torch.cat([two for _, two in pairs])
        middle, self.bias = past.mean(dim=0), step.mean(dim=0)
        centred = past - middle
        ridge = (past.shape[1] + _RIDGE * len(past)) * centred.square().mean().clamp(min=_SMALLEST_SQUARE)
        gram = centred.T @ centred + ridge * torch.eye(past.shape[1], dtype=past.dtype, device=past.device)
        self.weight = torch.linalg.solve(gram, centred.T @ (step - self.bias))
        self.bias = self.bias - middle @ self.weight
        errors = step - past @ self.weight - self.bias
        self.root = inverse_root(shrunk_covariance(errors))
        self.root = self.root / switch_scale(runs, errors @ self.root, self.root.diagonal().mul)
        return self

    def contributions(self, x: Tensor) -> Tensor:
        """Mean squared whitened errors of the last readings by column, [n, d]."""
        past, step = self._pairs(x)
        squares = ((step - past @ self.weight - self.bias) @ self.root).square()
        return moving_means(squares, self.smooth)

    def settings(self) -> dict[str, Any]:
        """The readings that it predicts from, and the errors that it averages."""
        return {"lags": self.lags, "smooth": self.smooth}

    def _pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pasts [n, (lags - 1)·d] and steps [n, d] of the readings after the first `lags`.

        Both are differences to the reading before.
        """
        last = x[self.lags - 1 : -1]
        past = windows(x[:-1], self.lags)[:, :-1] - last[:, None, :]
        return past.flatten(1), x[self.lags :] - last


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
