"""Modules that run outside the Python interpreter."""

from __future__ import annotations

import sys
import warnings
from typing import TypeVar, cast

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
# The last version of Python that TorchScript supports.
_LAST_PYTHON = (3, 13)


def script(module: ModuleT) -> ModuleT:
    """The module as TorchScript, where this Python has it: all its operations run without the interpreter's lock,
    which each would otherwise have to win back from the threads that serve HTTP.

    torch.compile and torch.export, which PyTorch advises instead, need a C++ compiler where they run
    (docs/decisions/0015-layers-as-torchscript.md).
    """
    if sys.version_info[:2] > _LAST_PYTHON:
        return module
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is", category=Warning)
        return cast("ModuleT", torch.jit.script(module))
