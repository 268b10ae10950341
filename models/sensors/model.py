"""The interfaces of sensor models: readings in, scores or forecasts out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Readings = NDArray[np.float64]
Times = NDArray[np.float64]
Doubles = NDArray[np.float64]
State = dict[str, NDArray[np.float64]]
SensorKind = Literal["records", "series"]
# The largest reading whose square is finite in float32, in which network detectors are trained.
LARGEST = 1e15
# The most bytes of a series' state: callers send it with every request.
MOST_STATE_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Drift:
    """A test whether recent p-values are still uniform, as those of normal readings are."""

    detected: bool
    p_value: float


@dataclass(frozen=True, slots=True)
class Scored:
    """The result of scoring readings [n, d].

    `scores` float32 [n], higher is more anomalous; `p_values` float64 [n]. `contributions` float32 [n, d], where
    asked for, are each column's share of the score; rows sum to 1 or are all zero. `drift` is as of the last reading,
    and `state` continues the stream.
    """

    scores: NDArray[np.float32]
    p_values: NDArray[np.float64]
    contributions: NDArray[np.float32] | None
    drift: Drift | None
    state: State


class AnomalyModel(Protocol):
    """A trained detector of anomalies in readings.

    Scoring readings in pieces, each with the state of the one before, equals scoring them at once.
    """

    @property
    def kind(self) -> SensorKind: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def window(self) -> int:
        """The least readings of a first call (series); 1 for records."""
        ...

    @property
    def calibrated_on(self) -> int:
        """The number of (effectively independent) normal scores behind the p-values."""
        ...

    @property
    def learns(self) -> bool:
        """Whether it adapts to readings, so that its threshold moves with the stream."""
        ...

    def score(
        self, readings: Readings, state: State | None = None, *, times: Times | None = None, contributions: bool = False
    ) -> Scored:
        """Score readings float64 [n, d] in the order of `columns`, NaN where one is missing.

        `times` float64 [n], in seconds since 1970 and increasing, are for detectors that know days and weeks.
        A missing one is the column's last value, and its median where there is none before (as in all records).
        Without a `state` a new stream begins. Records have an empty state.
        """
        ...

    def threshold(self, alpha: float) -> float | None:
        """The least score of an anomaly at `alpha`; None with too few normal readings."""
        ...

    def memory_bytes(self) -> int:
        """Bytes of tensors and tables."""
        ...


def lasting_threshold(sensor: AnomalyModel, alpha: float) -> float | None:
    """The sensor's threshold; None for a sensor that adapts, since its threshold moves."""
    return None if sensor.learns else sensor.threshold(alpha)


def require_columns(readings: Readings, columns: tuple[str, ...]) -> None:
    """Raise ValueError unless readings are [n, d] with a value for each column."""
    if readings.ndim != 2 or readings.shape[1] != len(columns):
        raise ValueError(f"readings: expected shape [n, {len(columns)}], got {list(readings.shape)}")


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast of h steps: `mean` float64 [h, d], and `quantiles` float64 [h, d] by level."""

    mean: Readings
    quantiles: dict[float, Readings]


class Forecaster(Protocol):
    """A trained forecaster of series."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def context(self) -> int:
        """The least readings of a call; of more, the last are used."""
        ...

    @property
    def horizon(self) -> int:
        """The most steps that it forecasts."""
        ...

    def forecast(self, readings: Readings, horizon: int, quantiles: tuple[float, ...]) -> Forecast:
        """Forecast from readings float64 [n, d], n >= context, NaN where one is missing."""
        ...

    def memory_bytes(self) -> int:
        """Bytes of tensors and tables."""
        ...
