"""A fitted image detector as files: tensors as safetensors, its kind as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import ModelSourceError
from models.images.detectors.detector import CalibratedImageDetector
from models.images.detectors.padim import Padim
from models.images.detectors.patch_core import PatchCore

STATE, SETTINGS = "image_detector.safetensors", "image_detector.json"
_CALIBRATION = "calibration"
# The dimensions of each kind's tensors.
_SHAPES: dict[str, dict[str, int]] = {
    Padim.kind: {"mean": 2, "precision": 3},
    PatchCore.kind: {"mean": 1, "deviation": 1, "bank": 2},
}


def save_image_detector(detector: CalibratedImageDetector, directory: Path) -> None:
    """Write both files into `directory`; equal detectors give equal bytes."""
    fitted = detector.detector
    tensors = {name: getattr(fitted, name).contiguous() for name in _SHAPES[fitted.kind]}
    save_file(tensors | {_CALIBRATION: detector.calibration.contiguous()}, directory / STATE)
    (directory / SETTINGS).write_text(json.dumps({"kind": fitted.kind}) + "\n", encoding="utf-8")


def load_image_detector(directory: Path) -> CalibratedImageDetector:
    """Read what `save_image_detector` wrote. Raises ModelSourceError for anything else."""
    try:
        kind = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))["kind"]
        return _restore(kind, load_file(directory / STATE))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        message = f"{directory.name}: not an image detector that can be read: {error}"
        raise ModelSourceError(message, param="model") from error


def _restore(kind: str, tensors: dict[str, Tensor]) -> CalibratedImageDetector:
    expected = _SHAPES[kind] | {_CALIBRATION: 1}
    found = {name: tensor.ndim for name, tensor in tensors.items()}
    if found != expected or not all(tensor.numel() for tensor in tensors.values()):
        raise ValueError(f"expected tensors with these dimensions {expected}, got {found}")
    if not all(tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ValueError("a tensor is not finite float32")
    calibration = tensors.pop(_CALIBRATION)
    return CalibratedImageDetector((Padim if kind == Padim.kind else PatchCore)(**tensors), calibration)
