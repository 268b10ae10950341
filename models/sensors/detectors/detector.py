"""The base of sensor detectors, which score a reading by the last `window` readings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn


class SensorDetector(nn.Module):
    """Base of the detectors.

    Readings come scaled (`RobustScale`), float64, in the order of time.

    `fit` takes runs, each [n, d], n ≥ window; readings of different runs are not neighbours. `forward` takes
    [n + window - 1, d] and returns the last n scores [n]; higher is more anomalous. `contributions` returns each
    column's non-negative part of them, [n, d]; a score is the root of their sum, unless a detector says otherwise.
    """

    kind: ClassVar[str]
    # Folds of its calibration: it is fitted as often, each time without one fold.
    folds: ClassVar[int] = 8
    # Whether its calibration allows for later stretches whose scores, all above 0, are higher or lower as a whole.
    by_stretches: ClassVar[bool] = False

    def __init__(self, columns: int, window: int = 1) -> None:
        super().__init__()
        self.columns = columns
        self.window = window

    @classmethod
    def restored(cls, columns: int, settings: Mapping[str, Any]) -> Self:
        """An unfitted detector with the settings of an artifact."""
        return cls(columns, **settings)

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Learn what normal readings look like."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of the last n readings."""
        return self.contributions(x).sum(dim=1).sqrt()

    def contributions(self, x: Tensor) -> Tensor:
        """Each column's part of the last n scores, [n, d], not negative."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments beside the number of columns, as JSON."""
        return {}

    def score_run(self, x: Tensor) -> Tensor:
        """Scores of a run [n, d] from its first whole window on: [max(n - window + 1, 0)]."""
        if len(x) < self.window:
            return x.new_zeros(0)
        with torch.inference_mode():
            scores: Tensor = self(x)
        return scores.clone()


def windows(x: Tensor, window: int) -> Tensor:
    """Every window of a run [n + window - 1, d]: [n, window, d], without copying."""
    return x.unfold(0, window, 1).transpose(1, 2)


def pieces(x: Tensor, rows: int) -> Iterator[Tensor]:
    """Split [n, …] into pieces of at most `rows` rows."""
    for start in range(0, len(x), rows):
        yield x[start : start + rows]


def require_runs(runs: Sequence[Tensor], least: int) -> None:
    """Raise ValueError for runs of fewer than `least` readings."""
    short = min((len(run) for run in runs), default=0)
    if short < least:
        raise ValueError(f"runs: expected at least {least} readings in each, got {short}")
