"""Fit a sensor to normal readings and calibrate it out of fold, by stretches of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sensors.block_calibration import BlockedCalibration, correlation_time
from models.sensors.calibrated_detector import CalibratedDetector, ScaledDetector
from models.sensors.detectors.detector import SensorDetector
from models.sensors.detectors.factory import build
from models.sensors.detectors.network import NetworkDetector, Watch
from models.sensors.model import Readings, SensorKind
from models.sensors.scaling import RobustScale

MakeDetector = Callable[[], SensorDetector]
_LEAST_ROWS = 16


def fit_sensor(
    kind: SensorKind,
    name: str,
    columns: tuple[str, ...],
    runs: Sequence[Readings],
    *,
    seed: int = 0,
    period_s: float | None = None,
    device: torch.device | None = None,
    watch: Watch | None = None,
) -> CalibratedDetector:
    """Fit the detector `name` to normal runs, each float64 [n, d] in the order of time.

    `watch` observes the training of a network on all runs. Raises ValueError where the runs are too short.
    """

    place = device or torch.device("cpu")

    def make() -> SensorDetector:
        return build(kind, name, len(columns), seed=seed).to(place)

    tensors = [torch.from_numpy(np.ascontiguousarray(run)).to(place) for run in runs]
    return fit_calibrated(kind, columns, make, tensors, period_s=period_s, watch=watch)


def fit_calibrated(
    kind: SensorKind,
    columns: tuple[str, ...],
    make: MakeDetector,
    runs: Sequence[Tensor],
    *,
    period_s: float | None = None,
    watch: Watch | None = None,
) -> CalibratedDetector:
    """A detector that `make` builds, fitted to runs [n, d] and calibrated out of fold."""
    scores = out_of_fold(make, runs)
    detector = make()
    if isinstance(detector, NetworkDetector):
        detector.watch = watch
    calibrate = BlockedCalibration.of_stretches if detector.by_stretches else BlockedCalibration.of
    stride = max(1, round(correlation_time(scores)))
    return CalibratedDetector(kind, columns, _fit(detector, runs), calibrate(scores), stride, period_s)


def out_of_fold(make: MakeDetector, runs: Sequence[Tensor]) -> list[NDArray[np.float32]]:
    """Scores of stretches of the runs, each by a detector fitted to the others.

    The first window of a stretch has no scores.
    """
    example = make()
    folds = split_for_calibration(runs, example.folds, least=max(2 * example.window, _LEAST_ROWS))
    scores = []
    for number, held in enumerate(folds):
        rest = [run for other, fold in enumerate(folds) if other != number for run in fold]
        model = _fit(make(), rest)
        with torch.inference_mode():
            scores += [model(run).float().cpu().numpy() for run in held]
    return scores


def split_for_calibration(runs: Sequence[Tensor], folds: int, *, least: int) -> list[list[Tensor]]:
    """Split runs into folds of stretches of at least `least` readings each.

    Folds are whole runs where there are enough, else equal parts of each run. Short runs give fewer folds, down to
    two. Raises ValueError where not even two are possible.
    """
    long = [run for run in runs if len(run) >= least]
    if len(long) >= folds:
        return [long[number::folds] for number in range(folds)]
    for count in range(folds, 1, -1):
        divided = [[part for part in run.tensor_split(count) if len(part) >= least] for run in runs]
        made = [[parts[number] for parts in divided if number < len(parts)] for number in range(count)]
        if all(made):
            return made
    longest = max((len(run) for run in runs), default=0)
    raise ValueError(f"expected a run of at least {2 * least} readings, the longest has {longest}")


def _fit(detector: SensorDetector, runs: Sequence[Tensor]) -> ScaledDetector:
    """Fit the scale to all runs, and the detector to those of at least a window."""
    scale = RobustScale(detector.columns).to(runs[0].device).fit(torch.cat(list(runs)))
    usable = [scale(run) for run in runs if len(run) >= detector.window]
    detector.fit(usable)
    return ScaledDetector(scale, detector).eval().requires_grad_(requires_grad=False)
