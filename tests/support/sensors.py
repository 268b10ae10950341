"""Fake sensor models in service, and their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI

from models.registry.artifact import Golden, Manifest
from models.registry.registry import Registry
from models.sensors.fitting import fit_sensor
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.model import AnomalyModel
from models.sensors.serialization import describe, save_sensor
from models.training.sensors.fit_forecaster import ForecastPlan, fit_forecaster
from service.serving.fine_tuned_metadata import sensor_metadata
from service.serving.model_manager import ModelManager
from service.serving.sensor_model import SensorModel, ServedSensor
from tests.fakes.sensor import FakeForecaster, FakeSensor
from tests.support.artifacts import MANIFEST

PUMP = "ft:sensors:local:pump"
RECORDS = "ft:sensors:local:records"
LOAD = "ft:sensors:local:load"


def sensor_manifest(name: str = PUMP, **changes: Any) -> Manifest:
    """The manifest of a sensor model without golden readings."""
    about: dict[str, Any] = {
        "task": "anomaly",
        "base": "sensors",
        "base_version": "1",
        "encoder": "none",
        "labels": (),
        "job": "",
    }
    return replace(
        MANIFEST, name=name, golden=Golden((), (), 1e-3), **{"sensor": {"period_s": 60.0}, **about, **changes}
    )


def put_in_service(
    manager: ModelManager, model: AnomalyModel | FakeForecaster, name: str = PUMP, **changes: Any
) -> ServedSensor:
    """A model, mostly a fake, under a trained model's name, without a registry."""
    task = "forecast" if isinstance(model, FakeForecaster) else "anomaly"
    manifest = sensor_manifest(name, task=task, **changes)
    metadata = sensor_metadata(model, manifest)
    sensor = ServedSensor(
        SensorModel(model, metadata), manager.engines.start_sensor(metadata), manifest, manager.context
    )
    manager.watcher.current = {**manager.watcher.current, name: sensor}
    return sensor


def with_sensors(app: FastAPI, *models: tuple[str, FakeSensor | FakeForecaster]) -> FastAPI:
    """The application with sensor models in service, too."""
    for name, model in models:
        put_in_service(app.state.manager, model, name)
    return app


def publish_detector(registry: Registry, staged: Path, columns: int = 8) -> None:
    """Put a small detector of records (columns c0, c1, …) into service in a registry."""
    names = tuple(f"c{number}" for number in range(columns))
    sensor = fit_sensor("records", "pca", names, [np.random.default_rng(0).standard_normal((600, columns))])
    _publish(registry, staged, RECORDS, sensor)


def publish_forecaster(registry: Registry, staged: Path, columns: int = 8) -> None:
    """Put a small forecaster (columns c0, c1, …) into service in a registry."""
    runs = [np.random.default_rng(seed).standard_normal((400, columns)) for seed in (0, 1)]
    plan = ForecastPlan(tuple(f"c{number}" for number in range(columns)), 12, 4, "linear")
    _publish(registry, staged, LOAD, fit_forecaster(runs[:1], runs[1:], plan).forecaster, task="forecast")


def _publish(
    registry: Registry, staged: Path, name: str, sensor: AnomalyModel | SeriesForecaster, **about: Any
) -> None:
    staged.mkdir()
    save_sensor(sensor, staged)
    changes = {"sensor": describe(sensor), **about}
    version = registry.publish(name, staged, lambda number: replace(sensor_manifest(name, **changes), version=number))
    registry.promote(name, version, by="test", why="")
