"""Fake sensor models in service, and their files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import FastAPI

from models.registry.artifact import Golden, Manifest
from models.sensors.base import AnomalyModel
from service.serving.metadata import sensor_metadata
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
