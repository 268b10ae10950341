"""Sensor models from the registry: checked by golden readings, swapped, pinned, aliased, withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import ArtifactError
from models.registry.artifact import Golden
from models.registry.registry import Registry
from models.sensors.fitting import fit_sensor
from models.sensors.serialization import describe, save_sensor
from service.config import Settings
from service.errors import Unservable
from service.jobs.golden_check import checker
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Caller
from tests.fakes.model import FakeModel
from tests.support.app import open_manager
from tests.support.sensors import PUMP, sensor_manifest

READINGS = np.random.default_rng(0).standard_normal((600, 2))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ModelManager]:
    manager = open_manager(Settings.read({"home": tmp_path, "device": "cpu"}), Metrics(), FakeModel())
    yield manager
    manager.close()


def publish(registry: Registry, where: Path, *, off: float = 0.0, seed: int = 0) -> int:
    """A small detector with golden readings; `off` makes them wrong."""
    sensor = fit_sensor("records", "pca", ("pressure", "flow"), [READINGS + seed], period_s=60.0)
    where.mkdir()
    save_sensor(sensor, where)
    rows = tuple((float(score) + off,) for score in sensor.score(READINGS[:8]).scores)
    golden = Golden((), rows, 1e-4, tuple(map(tuple, READINGS[:8].tolist())))
    return registry.publish(
        PUMP, where, lambda version: replace(sensor_manifest(sensor=describe(sensor)), version=version, golden=golden)
    )


def find(manager: ModelManager, name: str = PUMP) -> ServedSensor:
    found = asyncio.run(manager.resolve(name))
    assert isinstance(found, ServedSensor)
    return found


def test_what_serves_is_swapped_and_what_is_pinned_stays(manager: ModelManager, tmp_path: Path) -> None:
    for version in (1, 2):
        publish(manager.registry, tmp_path / f"staged-{version}", seed=version)
        manager.registry.promote(PUMP, version, by="test", why="")
        manager.watcher.sync()
        assert find(manager).label == f"{PUMP}:v{version}"
    old, new = find(manager, f"{PUMP}:v1"), find(manager)
    assert old.manifest.digest != new.manifest.digest
    assert new.metadata.notes == ()
    manager.registry.set_alias("the-pump", PUMP)
    manager.watcher.poke()
    manager.watcher.sync()
    assert find(manager, "the-pump") is new
    ours, _ = asyncio.run(new.score(READINGS, Caller(), state=None, contributions=True))
    assert ours.contributions is not None
    assert ours.contributions.sum(axis=1) == pytest.approx(1, abs=1e-5)
    manager.registry.withdraw(PUMP, by="test", why="")
    manager.watcher.sync()
    assert PUMP not in manager.watcher.current


def test_one_that_answers_otherwise_is_not_served(manager: ModelManager, tmp_path: Path) -> None:
    publish(manager.registry, tmp_path / "staged", off=0.01)
    manager.registry.promote(PUMP, 1, by="test", why="")
    manager.watcher.sync()
    with pytest.raises(Unservable, match=r"golden inputs: differs by 0\.01"):
        manager.find(PUMP)
    with pytest.raises(ArtifactError, match="golden"):
        manager.watcher._load(PUMP, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("off", "said"), [(0.0, None), (0.5, "golden inputs: differs by 0.5")])
def test_the_gate_runs_the_golden_readings(manager: ModelManager, tmp_path: Path, off: float, said: str | None) -> None:
    publish(manager.registry, tmp_path / "staged", off=off)
    found = checker(Settings.read({"home": tmp_path}))(manager.registry.path(PUMP, 1), "sensors")
    assert found is None if said is None else found is not None and found.startswith(said)
