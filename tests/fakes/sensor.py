"""Sensor models without training, for tests of everything around one: predictable scores."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from models.sensors.drift import DriftMonitor
from models.sensors.model import Drift, Forecast, Readings, Scored, SensorKind, State, Times

_SLOWNESS = 0.9


class FakeSensor:
    """A record's score is its largest absolute value, a series' the largest distance from a slow mean of the past.

    The p-value of a score s is 1 / (1 + s). `fault` may raise for readings. While `gate` is unset, all wait;
    `entered` is set when one has come. `sizes` records the number of readings of each call, `times` their times.
    """

    def __init__(
        self,
        kind: SensorKind = "records",
        columns: tuple[str, ...] = ("pressure", "flow"),
        *,
        window: int = 1,
        calibrated_on: int = 1000,
        fault: Callable[[Readings], None] = lambda readings: None,
    ) -> None:
        self.kind: SensorKind = kind
        self.columns = columns
        self.window = window
        self.calibrated_on = calibrated_on
        self.learns = False
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.sizes: list[int] = []
        self.times: list[Times | None] = []
        self._fault = fault

    def score(
        self, readings: Readings, state: State | None = None, *, times: Times | None = None, contributions: bool = False
    ) -> Scored:
        """See Sensor."""
        self.entered.set()
        self.gate.wait()
        self.sizes.append(len(readings))
        self.times.append(times)
        self._fault(readings)
        apart, after = (np.abs(readings), {}) if self.kind == "records" else self._apart(readings, state)
        scores = apart.max(axis=1)
        total = np.maximum(apart.sum(axis=1, keepdims=True), 1e-12)
        shares = (apart / total).astype(np.float32) if contributions else None
        drift = None if self.kind == "records" else Drift(bool(scores[-1] > 50), float(1 / (1 + scores[-1])))
        return Scored(scores.astype(np.float32), 1 / (1 + scores), shares, drift, after)

    def threshold(self, alpha: float) -> float | None:
        """See Sensor."""
        return 1 / alpha - 1 if alpha * (1 + self.calibrated_on) >= 1 else None

    def monitor(self) -> DriftMonitor:
        """See Monitored."""
        return DriftMonitor()

    def memory_bytes(self) -> int:
        """Nothing worth counting."""
        return 0

    def _apart(self, readings: Readings, state: State | None) -> tuple[Readings, State]:
        level = readings[0].copy() if state is None else state["level"]
        apart = np.empty_like(readings)
        for place, row in enumerate(readings):
            apart[place] = np.abs(row - level)
            level = _SLOWNESS * level + (1 - _SLOWNESS) * row
        return apart, {"level": level}


class FakeForecaster:
    """It goes on with the last reading; the quantile q is q - 0.5 above that."""

    def __init__(self, columns: tuple[str, ...] = ("pressure", "flow"), *, context: int = 4, horizon: int = 8) -> None:
        self.columns = columns
        self.context = context
        self.horizon = horizon

    def forecast(self, readings: Readings, horizon: int, quantiles: tuple[float, ...]) -> Forecast:
        """See Forecaster."""
        mean = np.repeat(readings[-1:], horizon, axis=0)
        return Forecast(mean, {level: mean + (level - 0.5) for level in quantiles})

    def memory_bytes(self) -> int:
        """Nothing worth counting."""
        return 0
