"""The seam between serving and models of numbers: blocks of readings in, scores or forecasts out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Readings = NDArray[np.float64]
State = dict[str, NDArray[np.float64]]
SensorKind = Literal["records", "series"]
# Beyond it squares of readings would leave float32, which detectors that are networks compute in.
LARGEST = 1e15
# Bytes of a series' state that a service takes: a caller carries them in every request.
MOST_STATE_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Drift:
    """Whether p-values of recent readings are still uniform, as those of normal readings are; `p_value` small = they
    are not.
    """

    detected: bool
    p_value: float


@dataclass(frozen=True, slots=True)
class Scored:
    """What readings [n, d] got: `scores` float32 [n] (higher is stranger), `p_values` float64 [n], `contributions`
    float32 [n, d] (shares of the score by column, each row sums to 1 or is all zero) where asked for, `drift` as of
    the last reading, and the `state` to go on from.
    """

    scores: NDArray[np.float32]
    p_values: NDArray[np.float64]
    contributions: NDArray[np.float32] | None
    drift: Drift | None
    state: State


class Sensor(Protocol):
    """A trained detector of numbers. Scoring readings in pieces, each with the state of the one before, equals
    scoring them at once.
    """

    @property
    def kind(self) -> SensorKind: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def window(self) -> int:
        """Readings that a first call needs at least (series); 1 for records."""
        ...

    @property
    def calibrated_on(self) -> int:
        """How many (effectively independent) scores of normal readings the p-values rest on."""
        ...

    @property
    def learns(self) -> bool:
        """Whether it goes on learning from what it scores: its threshold then moves with the stream."""
        ...

    def score(self, readings: Readings, state: State | None = None, *, contributions: bool = False) -> Scored:
        """Readings float64 [n, d], finite, in the order of `columns`. `state` None begins anew; records have an
        empty state.
        """
        ...

    def threshold(self, alpha: float) -> float | None:
        """The score from which a reading is an anomaly at `alpha`; None when there were too few normal readings to
        tell.
        """
        ...

    def memory_bytes(self) -> int:
        """What the model holds."""
        ...


def lasting_threshold(sensor: Sensor, alpha: float) -> float | None:
    """The sensor's threshold; None where it moves, so that no one score parts anomalies from the rest."""
    return None if sensor.learns else sensor.threshold(alpha)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecasts of `horizon` steps: `mean` float32 [h, d], `quantiles` of each asked level float32 [h, d]."""

    mean: NDArray[np.float32]
    quantiles: dict[float, NDArray[np.float32]]


class Forecaster(Protocol):
    """A trained forecaster of series."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def context(self) -> int:
        """Readings that a call needs at least; of more, the last are used."""
        ...

    @property
    def horizon(self) -> int:
        """The most steps that it forecasts."""
        ...

    def forecast(self, readings: Readings, horizon: int, quantiles: tuple[float, ...]) -> Forecast:
        """From readings float64 [n, d], n >= context."""
        ...

    def memory_bytes(self) -> int:
        """What the model holds."""
        ...
