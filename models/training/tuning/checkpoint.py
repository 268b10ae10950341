"""A training run on disk: the weights that train and the optimizer's state as safetensors, all else as JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_FORMAT = 1
_WEIGHTS, _STATE = "weights.safetensors", "state.json"
_KEEP = 2


@dataclass(frozen=True, slots=True)
class TunerCheckpoint:
    """Where a run stood: `step` steps done of the run that `fingerprint` names."""

    path: Path
    step: int
    fingerprint: str


def write(
    directory: Path, step: int, fingerprint: str, module: nn.Module, optimizer: torch.optim.Optimizer
) -> TunerCheckpoint:
    """Write `directory/step-<n>`, complete or not at all, and drop all but the two newest."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"step-{step:08d}"
    staging = directory / f".{target.name}.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    numbers, tensors = _flattened(module, optimizer)
    save_file(tensors, staging / _WEIGHTS)
    state = {"format": _FORMAT, "step": step, "fingerprint": fingerprint, "optimizer": numbers}
    (staging / _STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
    for file in staging.iterdir():
        _sync(file)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    _sync(directory)
    for old in sorted(directory.glob("step-*"))[:-_KEEP]:
        shutil.rmtree(old)
    return TunerCheckpoint(target, step, fingerprint)


def read(path: Path) -> TunerCheckpoint | None:
    """What lies at `path`, a checkpoint or a directory of them; None where nothing whole does."""
    for place in [path, *sorted(path.glob("step-*"), reverse=True)]:
        if (place / _STATE).is_file() and (place / _WEIGHTS).is_file():
            state = json.loads((place / _STATE).read_text(encoding="utf-8"))
            if state.get("format") == _FORMAT:
                return TunerCheckpoint(place, int(state["step"]), str(state["fingerprint"]))
    return None


def restore(checkpoint: TunerCheckpoint, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and optimizer state back. Raises ValueError where the file or the names in it do not fit."""
    try:
        tensors = load_file(checkpoint.path / _WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{checkpoint.path.name}: {error}") from error
    numbers = json.loads((checkpoint.path / _STATE).read_text(encoding="utf-8"))["optimizer"]
    trained = _trained(module)
    stored = {name.removeprefix("weights/") for name in tensors if name.startswith("weights/")}
    if stored != trained.keys():
        raise ValueError(
            f"{checkpoint.path.name}: other weights than this run trains: {sorted(stored ^ trained.keys())[:3]}"
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"weights/{name}"])
    optimizer.load_state_dict(_gathered(module, optimizer, tensors, numbers))


def _flattened(
    module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, dict[str, float]], dict[str, Tensor]]:
    """Optimizer scalars by parameter name, and all tensors under `weights/…` and `optimizer/<field>/…`."""
    numbers: dict[str, dict[str, float]] = {}
    tensors: dict[str, Tensor] = {}
    for name, parameter in _trained(module).items():
        tensors[f"weights/{name}"] = parameter.detach().cpu().contiguous()
        for field, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{field}/{name}"] = value.detach().cpu().contiguous()
            elif value is not None:
                numbers.setdefault(name, {})[field] = value
    return numbers, tensors


def _gathered(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The reverse of `_flattened`, in the form that the optimizer reads: state by the parameters' order."""
    names = {parameter: name for name, parameter in _trained(module).items()}
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, object]] = {index: dict(numbers.get(name, {})) for index, name in enumerate(order)}
    place = {name: index for index, name in enumerate(order)}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            field, _, name = rest.partition("/")
            state[place[name]][field] = tensor
    return {
        "state": {index: held for index, held in state.items() if held},
        "param_groups": optimizer.state_dict()["param_groups"],
    }


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
