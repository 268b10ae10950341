"""A network that predicts the next reading; its errors are the score."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from models.covariance import shrunk_covariance
from models.sensors.detectors.detector import pieces, windows
from models.sensors.detectors.folded_network import as_products
from models.sensors.detectors.moving_moments import moving_means
from models.sensors.detectors.network import MAX_UNITS, NetworkDetector
from models.sensors.detectors.records import inverse_root

_LAGS, _SMOOTH = 16, 8
_WIDTH = 32
_ROWS_AT_ONCE = 512


class StepNetwork(nn.Module):
    """The next step [n, d] from the past [n, d, 16]: a linear map plus two convolutions.

    Saved weights have the names `straight` (linear) and `bent` (convolutions).
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.straight = nn.Linear(columns * _LAGS, columns)
        self.bent: nn.Sequential = nn.Sequential(
            nn.Conv1d(columns, _WIDTH, 3, padding=1),
            nn.GELU(),
            nn.Conv1d(_WIDTH, _WIDTH, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(_WIDTH * _LAGS // 2, columns),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Steps [n, d]."""
        straight: Tensor = self.straight(x.flatten(1))
        bent: Tensor = self.bent(x)
        return straight + bent


class PredictionErrorDetector(NetworkDetector):
    """A convolutional forecaster's error on the last 8 readings, each from the 16 before.

    `residual` with a network in place of the linear map: it reads the past as differences to its last reading, so
    that a new level is no error by itself. Errors are whitened by their shrunk covariance; the score is
    the root of their mean square.
    """

    kind = "foresight"  # the stored id
    network: StepNetwork
    root: Tensor

    def __init__(self, columns: int, *, seed: int = 0) -> None:
        super().__init__(columns, _LAGS + _SMOOTH, seed=seed)
        self.register_buffer("root", torch.eye(columns, dtype=torch.float64))

    def build(self) -> StepNetwork:
        """About 5,000 weights for a few columns."""
        return StepNetwork(self.columns)

    def build_exact(self) -> nn.Module:
        """The network in float64, its convolutions as matrix products."""
        made = copy.deepcopy(self.network).double()
        made.bent = as_products(self.network.bent, (self.columns, _LAGS))
        return made

    def examples(self, x: Tensor) -> Tensor:
        """Each reading after the first 16, and the 16 before it, less the last of these [n, d, 17]."""
        return _steps(x).clamp(-MAX_UNITS, MAX_UNITS).float()

    def inputs(self, batch: Tensor) -> Tensor:
        """The past, [n, d, 16]."""
        return batch[:, :, :-1]

    def targets(self, batch: Tensor) -> Tensor:
        """The step that followed, [n, d]."""
        return batch[:, :, -1]

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Train, then measure the covariance of the columns' errors."""
        self.learn(runs)
        with torch.no_grad():
            self.root = inverse_root(shrunk_covariance(torch.cat([self._errors(run) for run in runs])))
        return self

    def contributions(self, x: Tensor) -> Tensor:
        """Mean squared whitened errors of the last readings by column, [n, d]."""
        squares = (self._errors(x) @ self.root).square()
        return moving_means(squares, _SMOOTH)

    def _errors(self, x: Tensor) -> Tensor:
        """Prediction errors float64 after the first 16 readings; clipped parts count in full."""
        return torch.cat([self._step_errors(steps) for steps in pieces(_steps(x), _ROWS_AT_ONCE)])

    def _step_errors(self, steps: Tensor) -> Tensor:
        predicted: Tensor = self.exact(self.inputs(steps).clamp(-MAX_UNITS, MAX_UNITS))
        return self.targets(steps) - predicted


def _steps(x: Tensor) -> Tensor:
    """Windows of 17 readings less the last but one, [n, d, 17]."""
    seen = windows(x, _LAGS + 1).transpose(1, 2)
    return seen - seen[:, :, -2:-1]
