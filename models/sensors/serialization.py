"""A model of numbers on disk: `sensor.safetensors` and `sensor.json`, equal models giving equal bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import ModelSourceError
from models.sensors.adaptive import detector as adaptive
from models.sensors.adaptive.detector import AdaptiveSensor
from models.sensors.base import Forecaster, Sensor, SensorKind
from models.sensors.block_calibration import BlockedCalibration
from models.sensors.calibrated import CalibratedSensor, ScaledDetector
from models.sensors.detectors.factory import DETECTORS, build
from models.sensors.forecasting.forecaster import SeriesForecaster, restore_forecaster
from models.sensors.scaling import RobustScale

STATE, SETTINGS = "sensor.safetensors", "sensor.json"
_CALIBRATION = "calibration"


def save_sensor(sensor: Sensor, directory: Path) -> None:
    """Write both files into `directory`."""
    save_file(_tensors(sensor), directory / STATE)
    (directory / SETTINGS).write_text(
        json.dumps(describe(sensor), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _tensors(sensor: Sensor) -> dict[str, Tensor]:
    if isinstance(sensor, AdaptiveSensor):
        return {name: tensor.contiguous() for name, tensor in sensor.tensors().items()}
    if not isinstance(sensor, CalibratedSensor):
        raise TypeError(f"expected a sensor of this package, got {type(sensor).__name__}")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in sensor.model.state_dict().items()}
    return tensors | {_CALIBRATION: torch.from_numpy(sensor.calibration.scores)}


def describe(sensor: Sensor) -> dict[str, Any]:
    """What `sensor.json` holds: all but the tensors."""
    if isinstance(sensor, AdaptiveSensor):
        return sensor.describe()
    if not isinstance(sensor, CalibratedSensor):
        raise TypeError(f"expected a sensor of this package, got {type(sensor).__name__}")
    detector = sensor.model.detector
    return {
        "kind": sensor.kind,
        "columns": list(sensor.columns),
        "period_s": sensor.period_s,
        "detector": detector.kind,
        "settings": detector.settings(),
        "window": sensor.window,
        "blocks": sensor.calibration.blocks,
        "stride": sensor.stride,
    }


def load_sensor(directory: Path, device: torch.device | None = None) -> Sensor | Forecaster:
    """Read what `save_sensor` wrote. Raises ModelSourceError when it is not a model of numbers that this version can
    read.
    """
    try:
        settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
        return _restore(settings, load_file(directory / STATE), device or torch.device("cpu"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ModelSourceError(
            f"{directory.name}: not a model of numbers that can be read: {error}", param="model"
        ) from error


def _restore(
    settings: dict[str, Any], tensors: dict[str, Tensor], device: torch.device
) -> CalibratedSensor | AdaptiveSensor | SeriesForecaster:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ValueError("a tensor is not finite")
    if settings["kind"] == "forecast":
        return restore_forecaster(settings, tensors).to(device)
    if settings["detector"] == adaptive.NAME:
        return AdaptiveSensor.restored(settings, tensors)
    kind = _kind(settings["kind"])
    columns = tuple(str(name) for name in settings["columns"])
    scores = tensors.pop(_CALIBRATION)
    if scores.ndim != 1 or not len(scores) or scores.dtype != torch.float32:
        raise ValueError(f"calibration: expected float32 [m], m >= 1, got {scores.dtype} {list(scores.shape)}")
    model = ScaledDetector(
        RobustScale(len(columns)), build(kind, str(settings["detector"]), len(columns), settings["settings"])
    )
    _resize(model, tensors)
    if tensors["scale.center"].shape != (len(columns),):
        raise ValueError(f"columns: expected {tensors['scale.center'].shape[0]}, got {len(columns)}")
    model.load_state_dict(tensors, strict=True)
    if model.detector.window != settings["window"]:
        raise ValueError(f"window: expected {model.detector.window}, got {settings['window']}")
    blocks, stride, period = int(settings["blocks"]), int(settings["stride"]), settings["period_s"]
    if blocks < 1 or stride < 1:
        raise ValueError(f"blocks and stride: expected at least 1, got {blocks} and {stride}")
    calibration = BlockedCalibration(scores.sort().values.numpy(), blocks)
    ready = model.to(device).eval().requires_grad_(requires_grad=False)
    return CalibratedSensor(kind, columns, ready, calibration, stride, None if period is None else float(period))


def _kind(named: object) -> SensorKind:
    for kind in DETECTORS:
        if kind == named:
            return kind
    raise ValueError(f"kind {named!r} is none of {', '.join(DETECTORS)}")


def _resize(model: ScaledDetector, tensors: dict[str, Tensor]) -> None:
    """Give buffers whose length the data decide (directions kept, rows remembered) the length of what is loaded."""
    for name, place in list(model.named_buffers()):
        found = tensors.get(name)
        if found is None or found.ndim != place.ndim or found.dtype != place.dtype:
            raise ValueError(
                f"{name}: expected {place.dtype} of {place.ndim} dimensions, got "
                f"{found if found is None else found.shape}"
            )
        owner, _, buffer = name.rpartition(".")
        setattr(model.get_submodule(owner), buffer, torch.empty_like(found))
