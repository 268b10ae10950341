"""A sensor model in service: readings in, scores or forecasts out, through an engine."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from models.metadata import ModelMetadata, SensorSignature
from models.registry.artifact import Manifest
from models.sensors.drift import DriftMonitor
from models.sensors.model import (
    AnomalyModel,
    Drift,
    Forecast,
    Forecaster,
    Readings,
    Scored,
    State,
    Times,
    lasting_threshold,
)
from service.engine.row_engine import RowEngine
from service.serving.servable import Caller, Servable, ServingContext, Timings

ResultT = TypeVar("ResultT", Scored, Forecast)

# Readings of one item. A larger request is several items, with other requests in between.
READINGS_PER_ITEM = 1024
# Readings that take about as long as one token of a small encoder.
READINGS_PER_TOKEN = 16
_item_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class ReadingsItem(Generic[ResultT]):
    """Readings [n, d] and the work on them; the engine sets `result`.

    The engine's row of an item is a single number: NaN where the result has NaN or infinity, so that it fails like any
    invalid output. The result stays here, because p-values need float64 and a state has no fixed width.
    """

    readings: Readings
    work: Callable[[Readings], ResultT]
    result: ResultT | None = None
    # Unique, so that items are never cached or merged.
    key: bytes = field(default_factory=lambda: next(_item_numbers).to_bytes(8, "little"))

    @property
    def count(self) -> int:
        return _cost(len(self.readings))

    def compute(self) -> float:
        """Do the work; return the engine's number."""
        self.result = self.work(self.readings)
        return 0.0 if all(np.isfinite(one).all() for one in _arrays(self.result)) else float("nan")

    def finished(self) -> ResultT:
        """The result, once the engine has answered."""
        if self.result is None:
            raise RuntimeError("the engine answered an item that it had not computed")
        return self.result


class ReadingsBackend:
    """The backend of sensor models: each item does its own work; others overtake between."""

    def forward(self, batch: Sequence[ReadingsItem[Any]], preempt: Callable[[], None]) -> NDArray[np.float32]:
        """Compute one number per item, float32 [len(batch), 1]."""
        rows = np.empty((len(batch), 1), dtype=np.float32)
        for index, item in enumerate(batch):
            rows[index] = item.compute()
            preempt()
        return rows


@dataclass(frozen=True, slots=True)
class SensorModel:
    """A detector or a forecaster with its metadata."""

    model: AnomalyModel | Forecaster
    metadata: ModelMetadata

    def memory_bytes(self) -> int:
        """Bytes of the model."""
        return self.model.memory_bytes()


class Monitored(AnomalyModel, Protocol):
    """A detector of records, whose drift check the service keeps: records have no state."""

    def monitor(self) -> DriftMonitor:
        """A new drift check."""
        ...


class ServedSensor(Servable):
    """A version of a sensor model, with one drift check over all requests for records."""

    reads = "readings"
    owns_engine = True

    def __init__(
        self, model: SensorModel, engine: RowEngine[ReadingsItem[Any]], manifest: Manifest, context: ServingContext
    ) -> None:
        super().__init__(model, engine, context)
        self.manifest = manifest
        self._model = model.model
        self._monitor = cast(Monitored, model.model).monitor() if self.signature.kind == "records" else None
        self._monitoring = threading.Lock()
        # Looked up once: a look-up at each request would bring back the series of a retired version.
        self._drift = self._metrics.drift.labels(model.metadata.name, model.metadata.version)
        self._drift.set(0)

    @property
    def signature(self) -> SensorSignature:
        """The columns, window and kind of its readings."""
        if self.metadata.sensor is None:
            raise RuntimeError("the metadata of a sensor model has no signature")
        return self.metadata.sensor

    @property
    def calibrated_on(self) -> int:
        """How many independent scores of normal readings calibrate its p-values."""
        return cast(AnomalyModel, self._model).calibrated_on

    def threshold(self, alpha: float) -> float | None:
        """The score from which a reading is an anomaly at `alpha`; None if unknown or moving."""
        return lasting_threshold(cast(AnomalyModel, self._model), alpha)

    async def score(
        self,
        readings: Readings,
        caller: Caller,
        *,
        state: State | None,
        times: Times | None = None,
        contributions: bool,
    ) -> tuple[Scored, Timings]:
        """Score readings float64 [n, d], n > 0: records by themselves, a series at `times` [n] from `state` on.

        Raises Overloaded before any work, and DeadlineExceeded.
        """
        sensor = cast(AnomalyModel, self._model)

        def item(part: slice, before: State | None = None) -> ReadingsItem[Scored]:
            at = None if times is None else times[part]
            return ReadingsItem(
                readings[part], lambda rows: sensor.score(rows, before, times=at, contributions=contributions)
            )

        parts = [slice(at, at + READINGS_PER_ITEM) for at in range(0, len(readings), READINGS_PER_ITEM)]
        cost = sum(_cost(len(readings[part])) for part in parts)
        with self._admission.admit(len(parts), cost, lambda: self.engine.tokens_per_s):
            self._count(len(readings))
            if sensor.kind == "records":
                items = [item(part) for part in parts]
                _, waited, computed = await self._compute_rows(items, caller)
                scored = [one.finished() for one in items]
            else:
                scored, waited, computed = await self._score_in_order(parts, state, item, caller)
        result = await self._check_drift(_concatenated(scored))
        return result, Timings(inputs=len(readings), token_count=cost, queue_s=waited, inference_s=computed)

    async def forecast(
        self, readings: Readings, caller: Caller, horizon: int, quantiles: tuple[float, ...]
    ) -> tuple[Forecast, Timings]:
        """Forecast `horizon` steps after readings float64 [n, d], n ≥ context. Raises as `score`."""
        model = cast(Forecaster, self._model)
        item: ReadingsItem[Forecast] = ReadingsItem(
            readings[-model.context :], lambda rows: model.forecast(rows, horizon, quantiles)
        )
        with self._admission.admit(1, item.count, lambda: self.engine.tokens_per_s):
            self._count(len(readings))
            _, waited, computed = await self._compute_rows([item], caller)
        timings = Timings(inputs=len(readings), token_count=item.count, queue_s=waited, inference_s=computed)
        return item.finished(), timings

    async def _score_in_order(
        self,
        parts: list[slice],
        state: State | None,
        make_item: Callable[[slice, State | None], ReadingsItem[Scored]],
        caller: Caller,
    ) -> tuple[list[Scored], float, float]:
        """Score parts one after the other, since each needs the state that the one before leaves."""
        scored: list[Scored] = []
        waited = computed = 0.0
        for part in parts:
            item = make_item(part, state)
            _, part_waited, part_computed = await self._compute_rows([item], caller)
            scored.append(item.finished())
            state, waited, computed = scored[-1].state, waited + part_waited, computed + part_computed
        return scored, waited, computed

    def _count(self, readings: int) -> None:
        self._metrics.inputs.labels(self.metadata.name, self.metadata.task).inc(readings)

    async def _check_drift(self, scored: Scored) -> Scored:
        """Add the drift of records, and export the drift as a metric."""
        if self._monitor is not None:
            drift = await self.run_in_pool(partial(self._update_monitor, self._monitor, scored.p_values))
            scored = replace(scored, drift=drift)
        if scored.drift is not None:
            self._drift.set(scored.drift.detected)
        return scored

    def _update_monitor(self, monitor: DriftMonitor, p_values: NDArray[np.float64]) -> Drift:
        with self._monitoring:
            return monitor.update(p_values)


def _cost(readings: int) -> int:
    """The tokens that readings cost."""
    return -(-readings // READINGS_PER_TOKEN)


def _concatenated(parts: list[Scored]) -> Scored:
    """Join parts; drift and state are the last one's."""
    if len(parts) == 1:
        return parts[0]
    shares = [part.contributions for part in parts if part.contributions is not None]
    return Scored(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.p_values for part in parts]),
        np.concatenate(shares) if shares else None,
        parts[-1].drift,
        parts[-1].state,
    )


def _arrays(result: Scored | Forecast) -> list[NDArray[Any]]:
    if isinstance(result, Forecast):
        return [result.mean, *result.quantiles.values()]
    shares = [] if result.contributions is None else [result.contributions]
    return [result.scores, result.p_values, *shares]
