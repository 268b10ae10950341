"""Programs of AOTInductor: native code with no shapes of its own, run only where the operator trusts the file.

Such a package checks no input: it computes on fewer columns, another dtype, or more rows than it was compiled for. The
contract that is stated beside it is the only check.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from models.errors import source_error
from models.filesystem import sha256_of
from models.programs.contract import Contract, TensorSpec
from models.programs.reader import ReadProgram
from models.programs.stated_contract import StatedContract

log = logging.getLogger(__name__)

_MAPS = Path("/proc/self/maps")
# The directory that a package is extracted to, where a part of it is mapped.
_EXTRACTED = re.compile(r" (/.*/aotinductor_\w+)/.+/data/aotinductor/")
_NATIVE_FOLDER = "/data/aotinductor/"


class NativeModule(torch.nn.Module):
    """Compiled code as a module: tensors in the contract's order in, those of the contract out."""

    def __init__(self, loader: Any, contract: Contract, name: str) -> None:
        super().__init__()
        self._loader = loader
        self._outputs = contract.outputs
        self._name = name

    def forward(self, *values: Tensor) -> list[Tensor]:
        """Compute. Raises ModelSourceError where it gives other outputs than are stated."""
        made: list[Tensor] = self._loader.run(list(values))
        if len(made) != len(self._outputs) or not all(map(_fits, self._outputs, made)):
            shapes = ", ".join(f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}" for one in made)
            raise source_error(self._name, f"contract: expected the outputs that are stated, the program gave {shapes}")
        return made


def _fits(spec: TensorSpec, made: Tensor) -> bool:
    """Whether an output has the dtype, the dimensions and the fixed sizes that are stated."""
    sizes = zip(spec.shape, made.shape, strict=False)
    return (made.dtype, made.dim()) == (getattr(torch, spec.dtype), len(spec.shape)) and all(
        size == got for size, got in sizes if isinstance(size, int)
    )


def is_native(path: Path) -> bool:
    """Whether a file is a package with compiled code."""
    try:
        with ZipFile(path) as archive:
            return any(_NATIVE_FOLDER in f"/{name}" for name in archive.namelist())
    except (BadZipFile, OSError):
        return False


def load_code(path: Path, device: torch.device) -> Any:
    """Load the code of a package; raises RuntimeError.

    PyTorch's `aoti_load_package` compiles probes of the processor first. That takes seconds, and it runs what lies in a
    directory of /tmp that another user could have made.
    """
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)  # noqa: SLF001
    if device.type == "cpu":  # kernels of a GPU are read when they are first needed
        _remove_extracted()
    return loader


def _remove_extracted() -> None:
    """Remove the files that PyTorch extracted loaded code to: a process that is killed would leave them.

    The code is mapped into this process by then, and needs no file.
    """
    with contextlib.suppress(FileNotFoundError):  # only Linux shows what is mapped
        for folder in set(_EXTRACTED.findall(_MAPS.read_text())):
            shutil.rmtree(folder, ignore_errors=True)


def read_native(path: Path, stated: StatedContract | None, device: torch.device) -> ReadProgram:
    """Load compiled code with the contract that is stated beside it.

    This runs code of the file. Raises ModelSourceError without a contract, and for code of another device.
    """
    if stated is None:
        about = (
            "it has compiled code, which accepts any shape: state its contract beside it, as sonde export --json does"
        )
        raise source_error(path.name, about)
    contract = stated.contract(path.name)
    log.warning("running native code of %s, SHA-256 %s", path, sha256_of(path))
    try:
        loader = load_code(path, device)
    except Exception as error:  # the linker and PyTorch raise a dozen classes
        reason = f"{type(error).__name__}: {error}"[:300]
        raise source_error(path.name, f"its compiled code cannot be loaded here: {reason}") from error
    compiled_for = loader.get_metadata().get("AOTI_DEVICE_KEY", device.type)
    if compiled_for != device.type:
        raise source_error(path.name, f"expected code for {device.type}, got code for {compiled_for}: set --device")
    places = tuple(range(len(contract.outputs)))
    return ReadProgram(NativeModule(loader, contract, path.name), contract, "AOTInductor: native code", places)
