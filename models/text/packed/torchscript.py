"""Modules and functions that run outside the Python interpreter."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar, cast

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
CodeT = TypeVar("CodeT", bound=Callable[..., object])  # a module or a function
_LAST_SUPPORTED_PYTHON = (3, 13)


def script(code: CodeT) -> CodeT:
    """Compile a module or a function to TorchScript where this Python supports it.

    Its operations then run without the interpreter's lock. Otherwise each would have to win it back from the threads
    that serve HTTP. PyTorch advises torch.compile and torch.export instead, which need a C++ compiler where they run
    (docs/decisions/0015-layers-as-torchscript.md).
    """
    if sys.version_info[:2] > _LAST_SUPPORTED_PYTHON:
        return code
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is", category=Warning)
        return cast("CodeT", torch.jit.script(code))


def script_in_one(module: ModuleT, *methods: str) -> ModuleT:
    """`script` without calls from layer to layer: `forward` and the exported `methods`, each in one piece.

    The module is in evaluation mode, and its weights are constants from now on. A short text takes 3 to 5 % less time.
    """
    scripted = script(module)
    if scripted is module:
        return module
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.freeze` is", category=Warning)
        return cast("ModuleT", torch.jit.freeze(scripted, preserved_attrs=list(methods), optimize_numerics=False))


# A context in which the calling thread runs scripted modules as they are written. PyTorch would record the first call
# and rewrite the module at the second, which takes 0.2 s and makes a pass no faster (benchmarks/NOTES.md).
as_written: Callable[[], AbstractContextManager[None]] = partial(
    torch.jit.optimized_execution,  # type: ignore[attr-defined]
    should_optimize=False,
)
