"""Detectors that find different faults, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from models.sensors.detectors.detector import SensorDetector
from models.sensors.detectors.level import LevelDetector
from models.sensors.detectors.records import KnnRecords, PcaDetector
from models.sensors.detectors.residual import ResidualDetector
from models.sensors.detectors.window_statistics import StatisticsDetector

_LOW, _HIGH = 0.5, 0.99
_BEND = 0.1
_SMALLEST = 1e-9
# Readings in each window of the ensemble's statistics, and the norm of its members' scores.
_WINDOWS, _NORM = (16, 8, 4), 6.0
# Those of ensembles stored before both were settings.
_FIRST: Mapping[str, Any] = {"windows": (16,), "norm": 2.0}


class Combined(SensorDetector):
    """The mean of its members' scores, with a normal median of 0 and 99 % quantile of 1."""

    marks: Tensor  # [members, 2]: median and spread

    def __init__(self, columns: int, members: Sequence[SensorDetector]) -> None:
        super().__init__(columns, max(member.window for member in members))
        self.members = nn.ModuleList(members)
        self.register_buffer("marks", torch.tensor([[0.0, 1.0]] * len(members), dtype=torch.float64))

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Fit each member, then put them on one scale."""
        marks = []
        for member in self._members():
            fitted = member.fit(runs)
            scores = torch.cat([fitted.score_run(run) for run in runs])
            low, high = (scores.kthvalue(1 + int(q * (len(scores) - 1))).values for q in (_LOW, _HIGH))
            marks.append(torch.stack([low, (high - low).clamp(min=_SMALLEST)]))
        self.marks = torch.stack(marks)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of the last n of readings [n + window - 1, d]."""
        return self._normalized(x).mean(dim=0)

    def contributions(self, x: Tensor) -> Tensor:
        """Each member's shares by column, weighted by its score above its median, [n, d]."""
        total = x.new_zeros(len(x) - self.window + 1, self.columns)
        for member, score in zip(self._members(), self._normalized(x), strict=True):
            parts = member.contributions(self._input_of(member, x))
            total += parts / parts.sum(dim=1, keepdim=True).clamp(min=1e-300) * score.clamp(min=0)[:, None]
        return total

    def _normalized(self, x: Tensor) -> Tensor:
        """The members' scores on one scale, [members, n]."""
        scores = torch.stack([member(self._input_of(member, x)) for member in self._members()])
        return (scores - self.marks[:, :1]) / self.marks[:, 1:]

    def _input_of(self, member: SensorDetector, x: Tensor) -> Tensor:
        return x[self.window - member.window :]

    def _members(self) -> list[SensorDetector]:
        return [member for member in self.members if isinstance(member, SensorDetector)]


class CombinedRecords(Combined):
    """Principal directions and neighbours."""

    kind = "combined"

    def __init__(self, columns: int) -> None:
        super().__init__(columns, [PcaDetector(columns), KnnRecords(columns)])


class CombinedSeries(Combined):
    """Level and prediction error."""

    kind = "combined"

    def __init__(self, columns: int) -> None:
        super().__init__(columns, [LevelDetector(columns), ResidualDetector(columns)])


class EnsembleSeries(Combined):
    """Statistics of the last 16, 8 and 4 readings, level and prediction error: the 6-norm of their scores.

    Scores below their normal median count as almost 0, and the norm is near the largest of the scores. So the members
    that see no fault do not outvote the one that does. Short windows see short faults, which a long one dilutes.
    """

    kind = "ensemble"
    by_stretches = True

    def __init__(self, columns: int, windows: Sequence[int] = _WINDOWS, norm: float = _NORM) -> None:
        statistics = [StatisticsDetector(columns, window) for window in windows]
        super().__init__(columns, [*statistics, LevelDetector(columns), ResidualDetector(columns)])
        self.windows, self.norm = tuple(windows), norm

    @classmethod
    def restored(cls, columns: int, settings: Mapping[str, Any]) -> Self:
        """The unfitted ensemble of an artifact; the first ones state no settings."""
        return cls(columns, **(settings or _FIRST))

    def settings(self) -> dict[str, Any]:
        """The readings in each window of statistics, and the norm of the members' scores."""
        return {"windows": list(self.windows), "norm": self.norm}

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of the last n of readings [n + window - 1, d]."""
        return (self._normalized(x) ** self.norm).mean(dim=0) ** (1 / self.norm)

    def _normalized(self, x: Tensor) -> Tensor:
        """The members' scores, bent so that all are positive: about x above 0, and about 0 below."""
        scores = super()._normalized(x)
        return (scores + (scores.square() + 4 * _BEND**2).sqrt()) / 2
