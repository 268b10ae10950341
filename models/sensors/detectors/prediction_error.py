"""A network that foresees the next reading, and is surprised by what it has not seen lead there."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.linalg import shrunk_covariance
from models.sensors.detectors.base import pieces, windows
from models.sensors.detectors.matrix_products import as_products
from models.sensors.detectors.network import TRAINED_ON, NetworkDetector
from models.sensors.detectors.records import inverse_root

_LAGS, _SMOOTH = 16, 8
_WIDTH = 32
_ROWS_AT_ONCE = 512


class StepNetwork(nn.Module):
    """The next step of all columns [n, d] from the past [n, d, 16]: a linear map, and what two convolutions over
    time add to it.
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
    """How badly a convolutional forecaster foresaw the last 8 readings, each from the 16 before it.

    `residual` with a network in place of the linear map: it sees the past as differences to its last reading, so
    that a level it never saw costs nothing by itself. Errors are whitened by their shrunk covariance; the score is
    the root of their mean square.
    """

    kind = "foresight"
    network: StepNetwork
    root: Tensor

    def __init__(self, columns: int, *, seed: int = 0) -> None:
        super().__init__(columns, _LAGS + _SMOOTH, seed=seed)
        self.register_buffer("root", torch.eye(columns, dtype=torch.float64))

    def build(self) -> StepNetwork:
        """About 5,000 weights for a few columns."""
        return StepNetwork(self.columns)

    def products(self) -> nn.Module:
        """The same steps of the same past."""
        made = copy.deepcopy(self.network).double()
        made.bent = as_products(self.network.bent, (self.columns, _LAGS))
        return made

    def examples(self, x: Tensor) -> Tensor:
        """Each reading but the first 16 and the 16 before it, less the last of these: [n, d, 17]."""
        return _steps(x).clamp(-TRAINED_ON, TRAINED_ON).float()

    def given(self, batch: Tensor) -> Tensor:
        """The past, [n, d, 16]."""
        return batch[:, :, :-1]

    def wanted(self, batch: Tensor) -> Tensor:
        """The step that followed, [n, d]."""
        return batch[:, :, -1]

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Train, then measure how the errors of the columns hang together."""
        self.learn(runs)
        with torch.no_grad():
            self.root = inverse_root(shrunk_covariance(torch.cat([self._errors(run) for run in runs])))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of the last n of readings [n + 23, d]."""
        return self.parts(x).sum(dim=1).sqrt()

    def parts(self, x: Tensor) -> Tensor:
        """Mean squared whitened errors of the last readings by column, [n, d]."""
        squares = (self._errors(x) @ self.root).square()
        return functional.avg_pool1d(squares.T[None], _SMOOTH, 1)[0].T

    def _errors(self, x: Tensor) -> Tensor:
        """What was not foreseen of each reading but the first 16, float64; a step beyond the network's sight counts
        in full.
        """
        return torch.cat([self._missed(steps) for steps in pieces(_steps(x), _ROWS_AT_ONCE)])

    def _missed(self, steps: Tensor) -> Tensor:
        foreseen: Tensor = self.judge(self.given(steps).clamp(-TRAINED_ON, TRAINED_ON))
        return self.wanted(steps) - foreseen


def _steps(x: Tensor) -> Tensor:
    """Windows of 17 readings less the last but one, [n, d, 17]."""
    seen = windows(x, _LAGS + 1).transpose(1, 2)
    return seen - seen[:, :, -2:-1]
