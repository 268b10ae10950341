"""Faults injected into normal readings, to rank detectors without labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.sensors.calibrated_detector import FittedDetector
from models.sensors.model import Doubles, SensorKind
from models.training.metrics import auroc

# Enough rows and columns to rank detectors.
_MAX_ROWS, _MAX_COLUMNS = 2000, 8
_SHIFT, _NOISE = 3.0, 3.0


def fault_auroc(sensor: FittedDetector, run: Doubles, seed: int) -> float:
    """The mean AUROC of a run [n, d] with a fault in one column, against the run without.

    0.5 where the run has fewer than two windows, or no column varies.
    """
    run, first = run[:_MAX_ROWS], sensor.window - 1
    if len(run) < 2 * sensor.window:
        return 0.5
    normal = sensor.score(run).scores[first:]
    found = [auroc(normal, sensor.score(faulty).scores[first:]) for faulty in _inject_faults(run, sensor.kind, seed)]
    return float(np.mean(found)) if found else 0.5


def _inject_faults(run: Doubles, kind: SensorKind, seed: int) -> Iterator[Doubles]:
    """Copies of the run with one faulty column.

    A fault is a shift by 3 standard deviations, noise of 3, or a stuck value (in records: values of other rows).
    """
    random = np.random.default_rng(seed)
    spread = run.std(axis=0)
    for column in np.flatnonzero(spread > 0)[:_MAX_COLUMNS].tolist():
        x = run[:, column]
        stuck = np.full(len(x), x[0]) if kind == "series" else random.permutation(x)
        shifted = x + _SHIFT * spread[column]
        noisy = x + _NOISE * spread[column] * random.standard_normal(len(x))
        for values in (shifted, noisy, stuck):
            faulty = run.copy()
            faulty[:, column] = values
            yield faulty
