"""Checkpoints of a tuning run: tensors as safetensors, the rest as JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.filesystem import sync
from models.training.job_events import Events, emit

_FORMAT = 1
_WEIGHTS, _STATE = "weights.safetensors", "state.json"
_KEEP = 2


@dataclass(frozen=True, slots=True)
class TunerCheckpoint:
    """A checkpoint after `step` steps of the run with this fingerprint."""

    path: Path
    step: int
    fingerprint: str


class RunCheckpoints:
    """Saves and resumes one run.

    `directory` takes the checkpoints, `fingerprint` tells the run from others, `every` is their distance in steps (0:
    none).
    """

    def __init__(
        self,
        directory: Path,
        fingerprint: str,
        every: int,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        events: Events,
    ) -> None:
        self._directory, self._fingerprint, self._every = directory, fingerprint, every
        self._module, self._optimizer, self._events = module, optimizer, events

    def save(self, step: int, loss: float, *, now: bool) -> None:
        """Write a checkpoint where one is due or wanted now; the event tells the mean loss."""
        if now or (self._every and step % self._every == 0):
            written = write(self._directory, step, self._fingerprint, self._module, self._optimizer)
            metrics = {"loss": loss}
            self._events({"type": "checkpoint", "step": step, "path": str(written.path), "metrics": metrics})

    def resume(self, path: Path | None, total: int) -> int:
        """Restore the checkpoint at `path` if it is one of this run; return its step, or 0."""
        if path is None:
            return 0
        found = read(path)
        if found is None or found.fingerprint != self._fingerprint:
            reason = "other rows, settings or stage"
            emit(self._events, f"{path.name} holds no checkpoint of this run ({reason}): starting afresh", "warn")
            return 0
        restore(found, self._module, self._optimizer)
        emit(self._events, f"resumed after step {found.step} of {total}", "info")
        return found.step


def write(
    directory: Path, step: int, fingerprint: str, module: nn.Module, optimizer: torch.optim.Optimizer
) -> TunerCheckpoint:
    """Write `directory/step-<n>` atomically, and remove all but the two newest."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"step-{step:08d}"
    staging = directory / f".{target.name}.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    scalars, tensors = _flatten(module, optimizer)
    save_file(tensors, staging / _WEIGHTS)
    state = {"format": _FORMAT, "step": step, "fingerprint": fingerprint, "optimizer": scalars}
    (staging / _STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
    for file in staging.iterdir():
        sync(file)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    sync(directory)
    for old in sorted(directory.glob("step-*"))[:-_KEEP]:
        shutil.rmtree(old)
    return TunerCheckpoint(target, step, fingerprint)


def read(path: Path) -> TunerCheckpoint | None:
    """The checkpoint at `path`, or the newest complete one in it; None without any."""
    for candidate in [path, *sorted(path.glob("step-*"), reverse=True)]:
        if (candidate / _STATE).is_file() and (candidate / _WEIGHTS).is_file():
            state = json.loads((candidate / _STATE).read_text(encoding="utf-8"))
            if state.get("format") == _FORMAT:
                return TunerCheckpoint(candidate, int(state["step"]), str(state["fingerprint"]))
    return None


def restore(checkpoint: TunerCheckpoint, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load weights and optimizer state.

    Raises ValueError where the file or the names in it do not fit.
    """
    try:
        tensors = load_file(checkpoint.path / _WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{checkpoint.path.name}: {error}") from error
    scalars = json.loads((checkpoint.path / _STATE).read_text(encoding="utf-8"))["optimizer"]
    trainable = _trainable(module)
    stored = {name.removeprefix("weights/") for name in tensors if name.startswith("weights/")}
    if stored != trainable.keys():
        different = sorted(stored ^ trainable.keys())[:3]
        raise ValueError(f"{checkpoint.path.name}: other weights than this run trains: {different}")
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(tensors[f"weights/{name}"])
    optimizer.load_state_dict(_unflatten(module, optimizer, tensors, scalars))


def _flatten(
    module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, dict[str, float]], dict[str, Tensor]]:
    """Optimizer scalars by parameter, and tensors as `weights/…` and `optimizer/<field>/…`."""
    scalars: dict[str, dict[str, float]] = {}
    tensors: dict[str, Tensor] = {}
    for name, parameter in _trainable(module).items():
        tensors[f"weights/{name}"] = parameter.detach().cpu().contiguous()
        for field, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{field}/{name}"] = value.detach().cpu().contiguous()
            elif value is not None:
                scalars.setdefault(name, {})[field] = value
    return scalars, tensors


def _unflatten(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    scalars: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The optimizer's own form of what `_flatten` made: state by the order of the parameters."""
    names = {parameter: name for name, parameter in _trainable(module).items()}
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, object]] = {index: dict(scalars.get(name, {})) for index, name in enumerate(order)}
    index_of = {name: index for index, name in enumerate(order)}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            field, _, name = rest.partition("/")
            state[index_of[name]][field] = tensor
    held = {index: fields for index, fields in state.items() if fields}
    return {"state": held, "param_groups": optimizer.state_dict()["param_groups"]}


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
