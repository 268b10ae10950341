"""A detector of series by the errors of a linear forecaster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from models.covariance import shrunk_covariance
from models.sensors.detectors.command_columns import switch_scale
from models.sensors.detectors.detector import SensorDetector, require_runs, windows
from models.sensors.detectors.moving_moments import moving_means
from models.sensors.detectors.records import inverse_root

_LAGS, _SMOOTH = 16, 8
_RIDGE = 0.01
_SMALLEST_SQUARE = 1e-9


class ResidualDetector(SensorDetector):
    """A linear forecaster's error on the last 8 readings, each from the 16 before.

    The forecaster predicts the step from the last reading by ridge regression on the differences to it (NLinear of Zeng
    et al., 2023, across the columns). So a new level is no error by itself. The ridge weighs as much as a reading for
    each coefficient of a column, because few readings would else be learnt by heart. Errors are whitened by their
    shrunk covariance; the score is the root of their mean square.
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
