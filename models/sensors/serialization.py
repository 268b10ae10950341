"""A sensor model on disk: safetensors and JSON; equal models give equal bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import ModelSourceError
from models.sensors.adaptive.detector import DETECTOR_ID, AdaptiveDetector
from models.sensors.block_calibration import BlockedCalibration
from models.sensors.calibrated_detector import CalibratedDetector, ScaledDetector
from models.sensors.detectors.factory import DETECTORS, build
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.missing import MAX_MISSING
from models.sensors.model import AnomalyModel, Forecaster, SensorKind
from models.sensors.scaling import RobustScale

STATE, SETTINGS = "sensor.safetensors", "sensor.json"
_CALIBRATION = "calibration"


def save_sensor(sensor: AnomalyModel | SeriesForecaster, directory: Path) -> None:
    """Write both files into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in _tensors(sensor).items()}, directory / STATE)
    content = json.dumps(describe(sensor), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (directory / SETTINGS).write_text(content, encoding="utf-8")


def describe(sensor: AnomalyModel | SeriesForecaster) -> dict[str, Any]:
    """The content of `sensor.json`."""
    return _description(sensor) | {"max_missing": MAX_MISSING}


def _description(sensor: AnomalyModel | SeriesForecaster) -> dict[str, Any]:
    if isinstance(sensor, AdaptiveDetector | SeriesForecaster):
        return sensor.describe()
    calibrated = _require_calibrated(sensor)
    detector = calibrated.model.detector
    return {
        "kind": calibrated.kind,
        "columns": list(calibrated.columns),
        "period_s": calibrated.period_s,
        "detector": detector.kind,
        "settings": detector.settings(),
        "window": calibrated.window,
        "blocks": calibrated.calibration.blocks,
        "stride": calibrated.stride,
    }


def load_sensor(directory: Path, device: torch.device | None = None) -> AnomalyModel | Forecaster:
    """Read what `save_sensor` wrote. Raises ModelSourceError for anything else."""
    try:
        settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
        return _restore(settings, load_file(directory / STATE), device or torch.device("cpu"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ModelSourceError(
            f"{directory.name}: not a sensor model that can be read: {error}", param="model"
        ) from error


def _tensors(sensor: AnomalyModel | SeriesForecaster) -> dict[str, Tensor]:
    if isinstance(sensor, AdaptiveDetector | SeriesForecaster):
        return sensor.tensors()
    calibrated = _require_calibrated(sensor)
    tensors = {name: tensor.cpu() for name, tensor in calibrated.model.state_dict().items()}
    return tensors | {_CALIBRATION: torch.from_numpy(calibrated.calibration.scores)}


def _require_calibrated(sensor: AnomalyModel) -> CalibratedDetector:
    if not isinstance(sensor, CalibratedDetector):
        raise TypeError(f"expected a sensor of this package, got {type(sensor).__name__}")
    return sensor


def _restore(
    settings: dict[str, Any], tensors: dict[str, Tensor], device: torch.device
) -> CalibratedDetector | AdaptiveDetector | SeriesForecaster:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ValueError("a tensor is not finite")
    if settings["kind"] == "forecast":
        return SeriesForecaster.restored(settings, tensors).to(device)
    if settings["detector"] == DETECTOR_ID:
        return AdaptiveDetector.restored(settings, tensors)
    return _restore_calibrated(settings, tensors, device)


def _restore_calibrated(
    settings: dict[str, Any], tensors: dict[str, Tensor], device: torch.device
) -> CalibratedDetector:
    kind, columns = _kind(settings["kind"]), tuple(str(name) for name in settings["columns"])
    scores = tensors.pop(_CALIBRATION)
    if scores.ndim != 1 or not len(scores) or scores.dtype != torch.float32:
        raise ValueError(f"calibration: expected float32 [m], m >= 1, got {scores.dtype} {list(scores.shape)}")
    detector = build(kind, str(settings["detector"]), len(columns), settings["settings"])
    model = ScaledDetector(RobustScale(len(columns)), detector)
    _resize_buffers(model, tensors)
    if tensors["scale.center"].shape != (len(columns),):
        raise ValueError(f"columns: expected {tensors['scale.center'].shape[0]}, got {len(columns)}")
    model.load_state_dict(tensors, strict=True)
    if detector.window != settings["window"]:
        raise ValueError(f"window: expected {detector.window}, got {settings['window']}")
    blocks, stride, period = int(settings["blocks"]), int(settings["stride"]), settings["period_s"]
    if blocks < 1 or stride < 1:
        raise ValueError(f"blocks and stride: expected at least 1, got {blocks} and {stride}")
    calibration = BlockedCalibration(scores.sort().values.numpy(), blocks)
    ready = model.to(device).eval().requires_grad_(requires_grad=False)
    return CalibratedDetector(kind, columns, ready, calibration, stride, None if period is None else float(period))


def _kind(named: object) -> SensorKind:
    for kind in DETECTORS:
        if kind == named:
            return kind
    raise ValueError(f"kind {named!r} is none of {', '.join(DETECTORS)}")


def _resize_buffers(model: ScaledDetector, tensors: dict[str, Tensor]) -> None:
    """Give buffers the length of the stored ones: directions and reference rows vary."""
    for name, current in list(model.named_buffers()):
        stored = tensors.get(name)
        if stored is None or stored.ndim != current.ndim or stored.dtype != current.dtype:
            got = None if stored is None else stored.shape
            raise ValueError(f"{name}: expected {current.dtype} of {current.ndim} dimensions, got {got}")
        owner, _, buffer = name.rpartition(".")
        setattr(model.get_submodule(owner), buffer, torch.empty_like(stored))
