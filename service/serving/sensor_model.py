"""One model of numbers in service: readings in, scores or forecasts out, through the same queue as texts."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from models.base import ModelMetadata, SensorSignature
from models.registry.artifact import Manifest
from models.sensors.base import Drift, Forecast, Forecaster, Readings, Scored, Sensor, State, lasting_threshold
from service.engine.engine import Engine
from service.serving.servable import Caller, Servable

ResultT = TypeVar("ResultT", Scored, Forecast)

# The most readings of one item. A larger request is several, and others get their turn in between.
READINGS_PER_ITEM = 1024
# What readings cost, in the unit of the budgets: so many take about as long as a token of a small encoder.
READINGS_PER_TOKEN = 16
_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class ReadingsItem(Generic[ResultT]):
    """Readings [n, d] and what is to be done with them; `result` is there once the engine has computed it.

    The engine's row for it is a single number, NaN where the result has NaN or infinity, so that such a result fails
    like any other. The result stays here, since p-values need float64 and a state has no fixed width.
    """

    readings: Readings
    work: Callable[[Readings], ResultT]
    result: ResultT | None = None
    key: bytes = field(
        default_factory=lambda: next(_numbers).to_bytes(8, "little")
    )  # equal to no other: never cached, never merged

    @property
    def count(self) -> int:
        return -(-len(self.readings) // READINGS_PER_TOKEN)

    def compute(self) -> float:
        """Do the work; the row's number."""
        self.result = self.work(self.readings)
        return 0.0 if all(np.isfinite(one).all() for one in _arrays(self.result)) else float("nan")

    def finished(self) -> ResultT:
        """The result of a block that the engine has answered."""
        if self.result is None:
            raise RuntimeError("the engine answered a block that it had not computed")
        return self.result


class ReadingsBackend:
    """What an engine of numbers computes with: each block does its own work; others may overtake between two of
    them.
    """

    def forward(self, batch: Sequence[ReadingsItem[Any]], preempt: Callable[[], None]) -> NDArray[np.float32]:
        """One number a block, float32 [len(batch), 1]."""
        rows = np.empty((len(batch), 1), dtype=np.float32)
        for place, block in enumerate(batch):
            rows[place] = block.compute()
            preempt()
        return rows


@dataclass(frozen=True, slots=True)
class SensorModel:
    """A detector or a forecaster with its card."""

    model: Sensor | Forecaster
    card: ModelMetadata

    def memory_bytes(self) -> int:
        """Bytes that it holds."""
        return self.model.memory_bytes()


@dataclass(frozen=True, slots=True)
class SensorTimings:
    """How many readings something was made of, and the seconds that they waited and were computed; no text is cut or
    tokenised.
    """

    inputs: int
    token_count: int
    queue_s: float
    inference_s: float
    tokenize_s: float = 0.0
    truncated: int = 0


class Monitor(Protocol):
    """Whether a detector still fits: p-values in the order in which they come, and what is known after them."""

    def update(self, p_values: NDArray[np.float64]) -> Drift:
        """What is known after p-values [n]."""
        ...


class Monitored(Sensor, Protocol):
    """A detector of records, whose drift check is kept by whoever serves it: records have no state to carry it in."""

    def monitor(self) -> Monitor:
        """A drift check that knows nothing yet."""
        ...


class ServedSensor(Servable):
    """A version of a model that reads numbers. For records it keeps one drift check, over all that this process is
    asked.
    """

    owns_engine = True

    def __init__(
        self, model: SensorModel, engine: Engine[ReadingsItem[Any]], manifest: Manifest, **resources: Any
    ) -> None:
        super().__init__(model, engine, **resources)
        self.manifest = manifest
        self._model = model.model
        self._monitor = (
            cast(Monitored, model.model).monitor()
            if model.card.sensor and model.card.sensor.kind == "records"
            else None
        )
        self._monitoring = threading.Lock()
        # Held, not looked up at each request: looking it up would bring the series of a version that has been retired
        # back.
        self._drift = self._metrics.drift.labels(model.card.name, model.card.version)
        self._drift.set(0)

    @property
    def label(self) -> str:
        """What `x-sonde-model` says: a name that can be asked for."""
        return f"{self.manifest.name}:v{self.manifest.version}"

    @property
    def numbers(self) -> SensorSignature:
        """What it reads."""
        if self.card.sensor is None:
            raise RuntimeError("a model of numbers has a card without numbers")
        return self.card.sensor

    @property
    def calibrated_on(self) -> int:
        """How many independent scores of normal readings its p-values rest on."""
        return cast(Sensor, self._model).calibrated_on

    def threshold(self, alpha: float) -> float | None:
        """The score from which a reading is an anomaly at `alpha`; None where that cannot be told."""
        return lasting_threshold(cast(Sensor, self._model), alpha)

    async def score(
        self, readings: Readings, caller: Caller, *, state: State | None, contributions: bool
    ) -> tuple[Scored, SensorTimings]:
        """Scores of readings float64 [n, d], n > 0: records by themselves, a series from `state` on.

        Raises Overloaded before any work, DeadlineExceeded when time runs out.
        """
        sensor = cast(Sensor, self._model)

        def block(part: Readings, before: State | None) -> ReadingsItem[Scored]:
            return ReadingsItem(part, lambda rows: sensor.score(rows, before, contributions=contributions))

        parts = [readings[at : at + READINGS_PER_ITEM] for at in range(0, len(readings), READINGS_PER_ITEM)]
        cost = sum(block(part, None).count for part in parts)
        with self._admission.admit(len(parts), cost, lambda: self.engine.tokens_per_s):
            self._count(len(readings))
            if sensor.kind == "records":
                scored, waited, computed = await self._together([block(part, None) for part in parts], caller)
            else:
                scored, waited, computed = await self._in_turn(parts, state, block, caller)
        whole = await self._watched(_joined(scored))
        return whole, SensorTimings(len(readings), cost, waited, computed)

    async def forecast(
        self, readings: Readings, caller: Caller, horizon: int, quantiles: tuple[float, ...]
    ) -> tuple[Forecast, SensorTimings]:
        """The `horizon` steps after readings float64 [n, d], n at least the model's context. Raises as `score` does."""
        model = cast(Forecaster, self._model)
        block: ReadingsItem[Forecast] = ReadingsItem(
            readings[-model.context :], lambda rows: model.forecast(rows, horizon, quantiles)
        )
        with self._admission.admit(1, block.count, lambda: self.engine.tokens_per_s):
            self._count(len(readings))
            _, waited, computed = await self._queued([block], caller)
        return block.finished(), SensorTimings(len(readings), block.count, waited, computed)

    async def _together(self, blocks: list[ReadingsItem[Scored]], caller: Caller) -> tuple[list[Scored], float, float]:
        _, waited, computed = await self._queued(blocks, caller)
        return [block.finished() for block in blocks], waited, computed

    async def _in_turn(
        self,
        parts: list[Readings],
        state: State | None,
        block: Callable[[Readings, State | None], ReadingsItem[Scored]],
        caller: Caller,
    ) -> tuple[list[Scored], float, float]:
        """Each part needs the state that the one before leaves."""
        scored: list[Scored] = []
        waited = computed = 0.0
        for part in parts:
            now = block(part, state)
            _, part_waited, part_computed = await self._queued([now], caller)
            scored.append(now.finished())
            state, waited, computed = scored[-1].state, waited + part_waited, computed + part_computed
        return scored, waited, computed

    def _count(self, readings: int) -> None:
        self._metrics.inputs.labels(self.card.name, self.card.task).inc(readings)

    async def _watched(self, scored: Scored) -> Scored:
        """With the drift of records, and told to who watches the metrics."""
        if self._monitor is not None:
            scored = replace(scored, drift=await self.run_in_pool(partial(self._bet, self._monitor, scored.p_values)))
        if scored.drift is not None:
            self._drift.set(scored.drift.detected)
        return scored

    def _bet(self, monitor: Monitor, p_values: NDArray[np.float64]) -> Drift:
        with self._monitoring:
            return monitor.update(p_values)


def _joined(parts: list[Scored]) -> Scored:
    """Several parts as one; drift and state are the last one's."""
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
