"""A fitted detector as files: tensors as safetensors, its kind and settings as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import ModelSourceError
from models.text.detectors.combined import CombinedDetector
from models.text.detectors.energy import EnergyDetector
from models.text.detectors.knn import KnnDetector
from models.text.detectors.mahalanobis import MahalanobisDetector
from models.text.heads import LinearHead

STATE, SETTINGS = "detector.safetensors", "detector.json"

TextDetector = KnnDetector | MahalanobisDetector | EnergyDetector | CombinedDetector


def save_detector(detector: TextDetector, directory: Path) -> None:
    """Write both files into `directory`; equal detectors give equal bytes."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in detector.state_dict().items()}, directory / STATE)
    settings = {"kind": detector.kind, **detector.settings()}
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_detector(directory: Path) -> TextDetector:
    """Read what `save_detector` wrote. Raises ModelSourceError for anything else."""
    try:
        settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
        return _restore(settings, load_file(directory / STATE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelSourceError(f"{directory.name}: not a detector that can be read: {error}", param="model") from error


def _restore(settings: dict[str, object], tensors: dict[str, Tensor]) -> TextDetector:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ValueError("a tensor is not finite")
    calibration = tensors["calibration"]
    if calibration.ndim != 1 or not len(calibration):
        raise ValueError(f"calibration: expected shape [m], m >= 1, got {list(calibration.shape)}")
    detector = _unfitted(settings, tensors)
    buffers = dict(detector.named_buffers())
    if set(buffers) != set(tensors):
        raise ValueError(f"expected tensors {sorted(buffers)}, got {sorted(tensors)}")
    for name, tensor in tensors.items():
        if tensor.ndim != buffers[name].ndim:
            raise ValueError(f"{name}: expected {buffers[name].ndim} dimensions, got {tensor.ndim}")
        owner, _, buffer = name.rpartition(".")
        setattr(detector.get_submodule(owner), buffer, tensor)
    return detector


def _unfitted(settings: dict[str, object], tensors: dict[str, Tensor]) -> TextDetector:
    """A detector of the stored kind, to put the tensors into."""
    kind = settings["kind"]
    if kind == MahalanobisDetector.kind:
        return MahalanobisDetector()
    if kind == EnergyDetector.kind:
        return EnergyDetector(_head(tensors["weight"], tensors["bias"]))
    if kind == KnnDetector.kind:
        return KnnDetector(int(str(settings["neighbours"])))
    if kind == CombinedDetector.kind:
        energetic = EnergyDetector(_head(tensors["energetic.weight"], tensors["energetic.bias"]))
        return CombinedDetector(KnnDetector(int(str(settings["neighbours"]))), energetic)
    raise ValueError(f"kind {kind!r} is none of knn, mahalanobis, energy, combined")


def _head(weight: Tensor, bias: Tensor) -> LinearHead:
    return LinearHead(weight, bias, tuple(map(str, range(len(weight)))))
