"""Modules and functions that run outside the Python interpreter."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
CodeT = TypeVar("CodeT", bound=Callable[..., object])  # a module or a function
_LAST_SUPPORTED_PYTHON = (3, 13)
# PyTorch's own attributes of a module.
_OF_ALL_MODULES = vars(nn.Module()).keys()


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


def script_alike(modules: Iterable[ModuleT]) -> list[ModuleT]:
    """`script` modules that differ in nothing but their weights and numbers: one is compiled, the others are copies.

    A layer of BERT takes 40 ms to compile and 1 ms to copy. Raises ValueError for modules of other classes or
    constants, and RuntimeError for values of other types.
    """
    first, *others = modules
    scripted = script(first)
    return [scripted, *(other if scripted is first else _copy_for(scripted, first, other) for other in others)]


def _copy_for(scripted: ModuleT, original: nn.Module, module: nn.Module) -> ModuleT:
    """A copy of `scripted`, which `original` was compiled to, with the values of another module."""
    if _constants(original) != _constants(module):
        raise ValueError(f"expected {_constants(original)}, got {_constants(module)}: compile it by itself")
    made, others = copy.copy(scripted), _children(module)
    for name, child in _children(original).items():
        setattr(made, name, _copy_for(getattr(scripted, name), child, others[name]))
    for name, value in _values(module).items():
        if hasattr(made, name):
            setattr(made, name, value)
    return made


def _constants(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """The class of a module, and what TorchScript takes for constants of it."""
    kind = type(module)
    return kind.__qualname__, {name: getattr(module, name) for name in getattr(kind, "__constants__", ())}


def _children(module: nn.Module) -> dict[str, nn.Module]:
    """The modules of a module by name; one of two names counts twice."""
    return {name: one for name, one in module.named_modules(remove_duplicate=False) if name and "." not in name}


def _values(module: nn.Module) -> dict[str, Any]:
    """Tensors and other attributes of a module that are no constants."""
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    others = {name: value for name, value in vars(module).items() if name not in _OF_ALL_MODULES}
    constants = _constants(module)[1]
    return {name: value for name, value in (dict(tensors) | others).items() if name not in constants}


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
