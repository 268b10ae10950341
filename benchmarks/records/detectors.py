"""The detectors that the bench compares: all of Sonde's for records, what `auto` takes, and PyOD's."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from benchmarks.false_alarms import choose_detector
from benchmarks.records.generators import Doubles
from benchmarks.records.tables import GeneratedTable
from models.sensors.detectors.factory import DETECTORS
from models.sensors.detectors.network import NetworkDetector
from models.sensors.fitting import fit_sensor
from models.training.data.segments import Segments, to_segments
from models.training.data.table import Table

ALPHA = 0.05
AUTO = "auto"
_PYOD = ("PyOD's ECOD", "PyOD's IForest", "PyOD's KNN")
# Scores [n] of rows [n, d], and whether each is flagged.
Judge = Callable[[Doubles], tuple[NDArray[np.floating], NDArray[np.bool_]]]


def ours(*, networks: bool) -> list[str]:
    """Sonde's detectors of records."""
    known = DETECTORS["records"].items()
    return [name for name, one in known if networks or not issubclass(one, NetworkDetector)]


def others() -> tuple[str, ...]:
    """PyOD's detectors, where it is installed."""
    return _PYOD if find_spec("pyod") else ()


def choose(table: GeneratedTable, *, networks: bool) -> str:
    """The detector that a job with `detector: "auto"` takes."""
    return choose_detector(_segments(table), "records", networks=networks)


def fit(name: str, table: GeneratedTable) -> Judge:
    """A detector trained as a job trains it."""
    if name in _PYOD:
        return _fit_pyod(name, table)
    sensor = fit_sensor("records", name, table.columns, _segments(table).normal())

    def judge(rows: Doubles) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        scored = sensor.score(rows)
        return scored.scores, scored.p_values <= ALPHA

    return judge


def _segments(table: GeneratedTable) -> Segments:
    """The training rows as a job has them, with missing values filled."""
    return to_segments(Table(table.columns, table.train, np.arange(len(table.train))), "records")[0]


def _fit_pyod(name: str, table: GeneratedTable) -> Judge:
    """PyOD on standardised rows, as its users do; its threshold lets `ALPHA` of the training rows be outliers."""
    from pyod.models.ecod import ECOD  # a dependency of this comparison alone
    from pyod.models.iforest import IForest
    from pyod.models.knn import KNN

    middle, spread = np.nanmedian(table.train, axis=0), np.nanstd(table.train, axis=0)
    spread = np.where(spread > 0, spread, 1.0)

    def scale(rows: Doubles) -> Doubles:
        scaled: Doubles = (np.where(np.isnan(rows), middle, rows) - middle) / spread
        return scaled

    options = {"random_state": 0} if name == _PYOD[1] else {}
    model = dict(zip(_PYOD, (ECOD, IForest, KNN), strict=True))[name](contamination=ALPHA, **options)
    model.fit(scale(table.train))

    def judge(rows: Doubles) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        scores = model.decision_function(scale(rows))
        return scores, scores > model.threshold_

    return judge
