"""Sensor models in the engine: in items, fair, bounded, metered, and never wrong in silence."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from models.errors import ArtifactError
from models.sensors.model import Readings
from service.config import Settings
from service.engine.engine import Engine
from service.errors import BackendError, ConfigError, DeadlineExceeded, InvalidOutput, Overloaded, WrongTask
from service.metrics import Metrics
from service.serving.fine_tuned_metadata import sensor_metadata
from service.serving.model_manager import ModelManager
from service.serving.sensor_model import READINGS_PER_ITEM, ReadingsItem
from service.serving.servable import Caller
from tests.fakes.model import FakeModel
from tests.fakes.sensor import FakeForecaster, FakeSensor
from tests.support.app import open_manager
from tests.support.sensors import LOAD, PUMP, put_in_service, sensor_manifest
from tests.support.server import wait_until


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ModelManager]:
    manager = open_manager(Settings.read({"home": tmp_path, "max_queued_tokens": 1000}), Metrics(), FakeModel())
    yield manager
    manager.close()


def readings(count: int, seed: int = 0) -> Readings:
    return np.random.default_rng(seed).standard_normal((count, 2))


def sample(manager: ModelManager, name: str, **labels: str) -> float | None:
    return manager._metrics.registry.get_sample_value(name, labels)


def test_records_are_scored_in_blocks(manager: ModelManager) -> None:
    sensor = FakeSensor()
    served = put_in_service(manager, sensor)
    rows = readings(2 * READINGS_PER_ITEM + 5)
    scored, computed = asyncio.run(served.score(rows, Caller(), state=None, contributions=True))
    assert sorted(sensor.sizes) == [5, READINGS_PER_ITEM, READINGS_PER_ITEM]
    assert np.array_equal(scored.scores, np.abs(rows).max(axis=1).astype(np.float32))
    assert scored.p_values.dtype == np.float64
    assert scored.contributions is not None
    assert scored.contributions.shape == (2 * READINGS_PER_ITEM + 5, 2)
    assert (computed.inputs, computed.token_count) == (2 * READINGS_PER_ITEM + 5, 2 * 64 + 1)


def test_each_block_of_a_series_has_its_times(manager: ModelManager) -> None:
    sensor = FakeSensor("series")
    served = put_in_service(manager, sensor)
    times = np.cumsum(1.0 + np.arange(READINGS_PER_ITEM + 5))
    rows = readings(len(times))
    asyncio.run(served.score(rows, Caller(), state=None, times=times, contributions=False))
    first, second = sensor.times
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(np.concatenate([first, second]), times)
    asyncio.run(served.score(rows[:3], Caller(), state=None, contributions=False))
    assert sensor.times[-1] is None


@pytest.mark.parametrize("pieces", [[1] * 40, [7] * 5 + [5], [40], [1, 39]])
def test_a_series_in_pieces_is_the_series_at_once(manager: ModelManager, pieces: list[int]) -> None:
    served = put_in_service(manager, FakeSensor("series"))
    rows = readings(40)
    whole, _ = asyncio.run(served.score(rows, Caller(), state=None, contributions=False))
    state, at, scores = None, 0, []
    for piece in pieces:
        part, _ = asyncio.run(served.score(rows[at : at + piece], Caller(), state=state, contributions=False))
        state, at = part.state, at + piece
        scores += part.scores.tolist()
    assert scores == whole.scores.tolist()
    assert state is not None
    assert np.array_equal(state["level"], whole.state["level"])


def test_a_long_series_goes_from_block_to_block(manager: ModelManager) -> None:
    sensor = FakeSensor("series")
    served = put_in_service(manager, sensor)
    rows = readings(READINGS_PER_ITEM + 10)
    whole, _ = asyncio.run(served.score(rows, Caller(), state=None, contributions=False))
    assert sensor.sizes == [READINGS_PER_ITEM, 10]
    assert whole.scores.tolist() == FakeSensor("series").score(rows).scores.tolist()


def test_equal_readings_are_computed_each_time_and_kept_nowhere(manager: ModelManager) -> None:
    sensor = FakeSensor()
    served = put_in_service(manager, sensor)
    for _ in range(2):
        asyncio.run(served.score(readings(3), Caller(), state=None, contributions=False))
    assert sensor.sizes == [3, 3]
    assert ReadingsItem(readings(1), sensor.score).key != ReadingsItem(readings(1), sensor.score).key
    assert sample(manager, "sonde_cache_hits_total", model=PUMP) == 0


def test_it_is_metered(manager: ModelManager) -> None:
    served = put_in_service(manager, FakeSensor("series"))
    asyncio.run(served.score(readings(33), Caller(), state=None, contributions=False))
    assert sample(manager, "sonde_inputs_total", model=PUMP, task="anomaly") == 33
    assert sample(manager, "sonde_tokens_total", model=PUMP) == 3
    assert sample(manager, "sonde_drift_detected", model=PUMP, version="v1") == 0
    asyncio.run(served.score(np.array([[0.0, 0], [1000, 0]]), Caller(), state=None, contributions=False))
    assert sample(manager, "sonde_drift_detected", model=PUMP, version="v1") == 1


def test_records_drift_over_calls_not_within_one(manager: ModelManager) -> None:
    served = put_in_service(manager, FakeSensor())
    scored, _ = asyncio.run(served.score(np.full((10, 2), 1.0), Caller(), state=None, contributions=False))
    assert scored.drift is not None
    assert not scored.drift.detected
    for _ in range(4):
        scored, _ = asyncio.run(served.score(np.full((10, 2), 99.0), Caller(), state=None, contributions=False))
    assert scored.drift is not None
    assert scored.drift.detected
    assert sample(manager, "sonde_drift_detected", model=PUMP, version="v1") == 1


def test_a_full_queue_refuses_numbers_as_it_does_texts(manager: ModelManager) -> None:
    sensor = FakeSensor()
    sensor.gate.clear()
    served = put_in_service(manager, sensor)

    async def two() -> None:
        first = asyncio.create_task(served.score(readings(20_000), Caller(), state=None, contributions=False))
        await asyncio.sleep(0)
        try:
            with pytest.raises(Overloaded):
                await served.score(readings(16), Caller(), state=None, contributions=False)
        finally:
            sensor.gate.set()
        await first

    asyncio.run(two())


def test_one_reading_overtakes_many(manager: ModelManager) -> None:
    """Between two blocks of a bulk request an interactive one gets its turn."""
    order: list[int] = []
    sensor = FakeSensor(fault=lambda rows: order.append(len(rows)))
    served = put_in_service(manager, sensor)
    sensor.gate.clear()

    async def both() -> None:
        bulk = asyncio.create_task(
            served.score(readings(8 * READINGS_PER_ITEM), Caller("bulk"), state=None, contributions=False)
        )
        assert await asyncio.to_thread(sensor.entered.wait, 60)
        waiting, _ = served.engine.waiting
        single = asyncio.create_task(served.score(readings(1), Caller("single"), state=None, contributions=False))
        async with asyncio.timeout(60):
            while served.engine.waiting[0] == waiting:
                await asyncio.sleep(0.001)
        sensor.gate.set()
        await asyncio.gather(bulk, single)

    asyncio.run(both())
    assert order.index(1) <= 1
    assert len(order) == 9


def test_time_runs_out_in_the_queue(manager: ModelManager) -> None:
    sensor = FakeSensor()
    sensor.gate.clear()
    served = put_in_service(manager, sensor)
    with pytest.raises(DeadlineExceeded):
        asyncio.run(
            served.score(readings(3), Caller(deadline=time.monotonic() + 0.05), state=None, contributions=False)
        )
    sensor.gate.set()


def fail_at_nine(rows: Readings) -> None:
    if (rows == 9).any():
        raise ValueError("no nines")


def test_a_failure_is_its_own_requests_alone(manager: ModelManager) -> None:
    served = put_in_service(manager, FakeSensor(fault=fail_at_nine))

    async def both() -> list[object]:
        asked = [
            served.score(np.full((2, 2), value), Caller(), state=None, contributions=False) for value in (9.0, 1.0)
        ]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    bad, good = asyncio.run(both())
    assert isinstance(bad, BackendError)
    assert isinstance(good, tuple)


def test_nan_never_leaves_the_house(manager: ModelManager) -> None:
    served = put_in_service(manager, FakeSensor())
    with pytest.raises(InvalidOutput):
        asyncio.run(served.score(np.array([[1.0, 2.0], [np.nan, 1.0]]), Caller(), state=None, contributions=False))


def test_a_forecast(manager: ModelManager) -> None:
    served = put_in_service(manager, FakeForecaster(), LOAD)
    made, computed = asyncio.run(served.forecast(readings(50), Caller(), 3, (0.1, 0.9)))
    assert made.mean.tolist() == [readings(50)[-1].tolist()] * 3
    assert list(made.quantiles) == [0.1, 0.9]
    assert computed.inputs == 50
    assert sample(manager, "sonde_inputs_total", model=LOAD, task="forecast") == 50


def test_texts_and_numbers_are_not_mistaken_for_each_other(manager: ModelManager) -> None:
    put_in_service(manager, FakeSensor())
    put_in_service(manager, FakeForecaster(), LOAD)
    for task in ("embedding", "classification", "rerank"):
        with pytest.raises(WrongTask, match="does anomaly with readings"):
            manager.find_for(task, PUMP)
    with pytest.raises(WrongTask, match="reads readings, not texts"):
        asyncio.run(manager.resolve_texts(PUMP))
    with pytest.raises(WrongTask, match=f"models for forecast of readings: {LOAD}"):
        manager.require_readings(manager.find("fake"), "forecast")
    with pytest.raises(WrongTask, match=f"models for anomaly of readings: {PUMP}"):
        manager.require_readings(manager.find(LOAD), "anomaly")


def test_its_signature_says_what_it_reads() -> None:
    signature = sensor_metadata(FakeSensor("series", window=5), sensor_manifest()).signature()
    [source] = signature["inputs"]
    assert source == {
        "name": "series",
        "dtype": "float64",
        "shape": ["n", 2],
        "columns": ["pressure", "flow"],
        "minimum_rows": 5,
        "max_missing": 0.5,
    }
    assert (signature["kind"], signature["window"], signature["period_s"]) == ("series", 5, 60.0)
    forecaster = sensor_metadata(FakeForecaster(), sensor_manifest(LOAD, task="forecast")).signature()
    assert (forecaster["kind"], forecaster["window"], forecaster["horizon"]) == ("forecast", 4, 8)
    assert [output["shape"] for output in forecaster["outputs"]] == [["h", 2], ["h", 2]]


@pytest.mark.parametrize(
    ("model", "task"), [(FakeSensor(), "forecast"), (FakeForecaster(), "anomaly"), (FakeSensor(), "embedding")]
)
def test_a_manifest_of_another_task_is_refused(model: FakeSensor | FakeForecaster, task: str) -> None:
    with pytest.raises(ArtifactError, match=f"does {task}"):
        sensor_metadata(model, sensor_manifest(task=task))


def test_no_model_is_called_as_the_base_of_numbers(manager: ModelManager) -> None:
    with pytest.raises(ConfigError, match="sensors"):
        manager.add(FakeModel("sensors"))


def test_a_request_that_outlives_its_version_brings_no_series_back(manager: ModelManager) -> None:
    sensor = FakeSensor("series")
    sensor.gate.clear()
    served = put_in_service(manager, sensor)

    async def outlive() -> None:
        asked = asyncio.create_task(
            served.score(np.array([[0.0, 0], [1000, 0]]), Caller(), state=None, contributions=False)
        )
        await asyncio.sleep(0)
        manager.watcher._retire(served)
        sensor.gate.set()
        scored, _ = await asked
        assert scored.drift is not None
        assert scored.drift.detected, "who asked is told all the same"

    asyncio.run(outlive())
    assert sample(manager, "sonde_drift_detected", model=PUMP, version="v1") is None
    again = put_in_service(manager, FakeSensor("series"))
    asyncio.run(served.score(np.array([[0.0, 0]]), Caller(), state=None, contributions=False))
    assert sample(manager, "sonde_drift_detected", model=PUMP, version="v1") == 0, (
        "one that has been loaded anew is its own"
    )
    assert again is not served


@pytest.mark.slow
def test_it_ends_when_nobody_needs_it(manager: ModelManager) -> None:
    served = put_in_service(manager, FakeSensor())
    engine, gone = cast(Engine[Any], served.engine), weakref.ref(served)
    manager.watcher._retire(served)
    manager.watcher.current = {}
    del served
    wait_until(lambda: gc.collect() >= 0 and gone() is None)
    manager.watcher._retired.close_unused()
    assert not any(runner._thread.is_alive() for runner in engine._runners)
    assert sample(manager, "sonde_drift_detected", model=PUMP, version="v1") is None
