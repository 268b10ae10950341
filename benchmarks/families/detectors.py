"""The detectors that the bench compares: Sonde's, a choice of them, and PyOD's where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from benchmarks.false_alarms import choose_detector
from benchmarks.families.plant import Plant
from models.sensors.calibrated_detector import CalibratedDetector
from models.sensors.detectors.factory import DETECTORS
from models.sensors.detectors.network import NetworkDetector
from models.sensors.fitting import fit_sensor
from models.sensors.model import Readings
from models.training.data.segments import to_segments
from models.training.data.table import Table
from models.training.sensors.detector_selection import choose_by_faults

ALPHA = 0.05
# The rule that `auto` had before it took `ensemble` of every series without labels.
BY_FAULTS = "chosen by injected faults"
# Scores [n] of readings [n, d] that follow the training rows, and whether each is flagged.
Judge = Callable[[Readings], tuple[NDArray[np.floating], NDArray[np.bool_]]]


def names(*, networks: bool) -> list[str]:
    """All detectors of series, with a choice of them, and PyOD's where it is installed."""
    ours = [name for name, one in DETECTORS["series"].items() if networks or not issubclass(one, NetworkDetector)]
    return [*ours, BY_FAULTS, *(_PYOD if find_spec("pyod") else ())]


def fit(name: str, plant: Plant) -> Judge:
    """A detector trained as a job trains it."""
    if name in _PYOD:
        return _fit_pyod(name, plant)
    if name == BY_FAULTS:
        table = Table(plant.columns, plant.train, np.arange(len(plant.train)))
        name = choose_detector(to_segments(table, "series")[0], "series", networks=False, rule=choose_by_faults)
    return judge_by(fit_sensor("series", name, plant.columns, [plant.train]), plant)


def judge_by(sensor: CalibratedDetector, plant: Plant) -> Judge:
    """The judgement of a fitted sensor, whose stream goes on after the training rows."""
    state = sensor.score(plant.train).state

    def judge(readings: Readings) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        scored = sensor.score(readings, state)
        return scored.scores, scored.p_values <= ALPHA

    return judge


_PYOD = ("PyOD's PCA", "PyOD's KNN")


def _fit_pyod(name: str, plant: Plant) -> Judge:
    """PyOD on standardised rows, as its users do; its threshold lets `ALPHA` of the training rows be outliers."""
    from pyod.models.knn import KNN  # a dependency of this comparison alone
    from pyod.models.pca import PCA

    middle, spread = plant.train.mean(axis=0), plant.train.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = (PCA if name == _PYOD[0] else KNN)(contamination=ALPHA)
    model.fit((plant.train - middle) / spread)

    def judge(readings: Readings) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        scores = model.decision_function((readings - middle) / spread)
        return scores, scores > model.threshold_

    return judge
