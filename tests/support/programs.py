"""Exported programs for tests: archives with parts changed, and programs opened from them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.programs.program import Program
from models.programs.reader import read_program
from models.programs.tensors import HostTensor
from models.runtime.placement import place
from models.source import ModelSource

PROGRAMS = Path(__file__).parents[1] / "data" / "programs"
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


def program_path(name: str) -> Path:
    return PROGRAMS / f"{name}.pt2"


# Flags of a service for tests that ask it for nothing: it starts in a tenth of a second, and in two with the encoder.
PROGRAM = ("--model", f"net={program_path('mlp')}")


def read_parts(name: str) -> dict[str, bytes]:
    """The parts of an archive, by their names below its folder."""
    with zipfile.ZipFile(program_path(name)) as archive:
        return {entry.filename.partition("/")[2]: archive.read(entry) for entry in archive.infolist()}


def write_parts(path: Path, parts: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive of parts, as torch.export.save lays them out."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(f"{path.stem}/{name}", content)
    return path


def changed(path: Path, name: str, part: str, change: Callable[[Any], None]) -> Path:
    """An archive with a part whose JSON is changed."""
    parts = read_parts(name)
    content = json.loads(parts[part])
    change(content)
    parts[part] = json.dumps(content).encode()
    return write_parts(path, parts)


def open_program(name: str | Path) -> Program:
    """A program on the CPU."""
    path = program_path(name) if isinstance(name, str) else name
    source = ModelSource(path.stem, path, f"file {path.name}", "0" * 12)
    placement = place("cpu", "float32")
    return Program(source, read_program(path, torch.device("cpu")), placement)


def host(values: Any, dtype: str = "float32") -> HostTensor:
    """A tensor of a request."""
    return HostTensor(dtype, np.asarray(values, dtype=dtype))
