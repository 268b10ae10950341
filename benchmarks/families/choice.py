"""Leave-one-family-out: configurations chosen on all families but one, judged on the one left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from benchmarks.families.detectors import ALPHA, Judge, judge_by
from benchmarks.families.plant import Plant
from models.sensors.detectors.combined import Combined, EnsembleSeries
from models.sensors.detectors.detector import SensorDetector
from models.sensors.detectors.level import LevelDetector
from models.sensors.detectors.residual import ResidualDetector
from models.sensors.detectors.window_statistics import StatisticsDetector
from models.sensors.fitting import fit_calibrated

Make = Callable[[int], SensorDetector]
Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by family and configuration
_WINDOWS, _BLOCKS = (8, 16, 32), (20, 100, 400)
# Windows of statistics in one ensemble, and the norms of its members' scores.
_TOGETHER = ((16,), (16, 8), (16, 8, 4))
_NORMS = {"root mean square": 2.0, "6-norm": 6.0}


class _Ensemble(EnsembleSeries):
    """An ensemble of any members."""

    def __init__(self, columns: int, members: Sequence[Make], norm: float) -> None:
        Combined.__init__(self, columns, [member(columns) for member in members])
        self.norm = norm


def configurations() -> dict[str, Make]:
    """Single detectors and ensembles with other windows, blocks and norms than Sonde's."""
    found: dict[str, Make] = {f"level {window}": partial(LevelDetector, window=window) for window in _WINDOWS}
    found |= {f"residual {lags}": partial(ResidualDetector, lags=lags) for lags in (4, 16)}
    for window, block in product(_WINDOWS, _BLOCKS):
        found[f"statistics {window}, block {block}"] = partial(StatisticsDetector, window=window, block=block)
    for windows, block, (norm, power) in product(_TOGETHER, _BLOCKS, _NORMS.items()):
        statistics: list[Make] = [partial(StatisticsDetector, window=window, block=block) for window in windows]
        members = [*statistics, LevelDetector, ResidualDetector]
        name = f"ensemble of statistics {', '.join(map(str, windows))}; block {block}, {norm}"
        found[name] = partial(_Ensemble, members=members, norm=power)
    return found


def fit_configuration(name: str, plant: Plant) -> Judge:
    """A configuration trained on a plant as a job trains a detector."""
    make = configurations()[name]
    runs = [torch.from_numpy(np.ascontiguousarray(plant.train))]
    return judge_by(fit_calibrated("series", plant.columns, lambda: make(len(plant.columns)), runs), plant)


def chosen_without(family: str | None, figures: Figures) -> str:
    """The configuration with the best mean F1 over all families but one; over all for None.

    Those with a mean false-alarm rate above alpha are left out, since a p-value promises it.
    """
    others = [by for name, by in figures.items() if name != family]
    kept = [one for one in others[0] if _mean_rate(others, one) <= ALPHA] or list(others[0])
    return max(kept, key=lambda one: float(np.mean([by[one]["f1"] for by in others])))


def _mean_rate(families: Sequence[Mapping[str, Mapping[str, Any]]], configuration: str) -> float:
    rates = [rate for by in families for rate in by[configuration]["false_alarm_rates"]]
    return float(np.mean(rates)) if rates else 0.0
