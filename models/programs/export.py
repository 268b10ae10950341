"""Export a PyTorch module as a program, and compare the file with the module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor
from torch.export import Dim
from torch.utils import _pytree as pytree

from models.errors import ModelSourceError, SondeError
from models.filesystem import sha256_of
from models.programs.description import (
    NO_TASK,
    Description,
    completed,
    description_file,
    read_description,
    write_description,
)
from models.programs.program import Program
from models.programs.reader import read_program
from models.programs.row_check import check_rows
from models.programs.tensors import TORCH_DTYPES, HostTensor
from models.runtime.placement import place
from models.source import PROGRAM, ModelSource

# Rows of the example where it has a single one: torch.export takes a size of 1 for one that never varies.
_ROWS = 2
_CALIBRATED_AT_ONCE = 64
Inputs = tuple[Any, ...] | Mapping[str, Any]


def export_program(
    entry: str, out: Path, *, fixed_batch: bool = False, description: Description = NO_TASK, normal: Path | None = None
) -> Program:
    """Export what `module:function` returns into the file `out`, and return the program that was read back.

    The function returns a module and its example inputs, and may add torch.export's `dynamic_shapes`. Without them,
    all tensors begin with the batch, unless `fixed_batch` is set. A `description` is written beside the file, with the
    scores of `normal` inputs, a file of NumPy [n, …], as its calibration. Without a task, one that is there must fit.

    Raises ModelSourceError when it cannot be exported, read or described, or computes other values than the module;
    `out` is then left as it was.
    """
    if out.suffix != PROGRAM:
        raise ModelSourceError(f"{out}: expected a file that ends in {PROGRAM}", param="out")
    module, inputs, shapes = _call_entry(entry)
    if shapes is None and not fixed_batch:
        inputs, shapes = _with_batch(inputs)
    positional, named = (inputs, {}) if isinstance(inputs, tuple) else ((), dict(inputs))
    module = module.eval()
    with _explaining(entry, "torch.export cannot export it", "see the message; --fixed-batch keeps the batch as it is"):
        exported = torch.export.export(module, positional, named, dynamic_shapes=shapes)
    exported.example_inputs = None  # they would be pickled, and are the caller's
    written = out.with_name(f".{out.stem}.tmp.pt2")  # torch warns of other endings
    try:
        torch.export.save(exported, written)
        program = _read_back(written, out)
        _compare(program, module, positional, named, entry)
        if normal is not None:
            description = replace(description, calibration=_scores_of(program, normal, description))
        described = completed(
            read_description(out) if description == NO_TASK else description,
            program.contract,
            description_file(out).name,
        )
        if description != NO_TASK:
            write_description(out, described)
        written.replace(out)
    finally:
        written.unlink(missing_ok=True)
    return program


def _call_entry(entry: str) -> tuple[torch.nn.Module, Inputs, Any]:
    """The module, its example inputs and dynamic shapes, which a function of the caller makes."""
    name, _, function = entry.partition(":")
    if not name or not function.isidentifier():
        raise _export_error(entry, "expected MODULE:FUNCTION, like my_model:make")
    if name.endswith(".py") or not name.replace(".", "").isidentifier():
        file = Path(name)
        instead = f"write {file.stem}:{function} in the directory of {file.name}"
        raise _export_error(entry, f"expected the name of a module, got {name}; of a file, {instead}")
    sys.path.insert(0, str(Path.cwd()))
    with _explaining(entry, "it cannot be called", "the module is looked for in the working directory, too"):
        made = getattr(importlib.import_module(name), function)()
    parts = made if isinstance(made, tuple) else ()
    if len(parts) not in (2, 3) or not isinstance(parts[0], torch.nn.Module):
        raise _export_error(entry, f"expected a module and its example inputs, got {type(made).__name__}")
    inputs = (parts[1],) if isinstance(parts[1], Tensor) else parts[1]
    if not isinstance(inputs, tuple | Mapping):
        raise _export_error(entry, f"expected example inputs as a tuple or by name, got {type(inputs).__name__}")
    return parts[0], inputs, parts[2] if len(parts) == 3 else None


def _with_batch(inputs: Inputs) -> tuple[Inputs, Any]:
    """The inputs with at least two rows, and shapes whose first dimension varies."""
    batch = Dim("batch", min=1)
    inputs = pytree.tree_map(_repeat_row, inputs)
    shapes = pytree.tree_map(lambda one: {0: batch} if isinstance(one, Tensor) and one.dim() else None, inputs)
    return inputs, shapes


def _repeat_row(value: Any) -> Any:
    """A tensor of one row with the row again."""
    is_row = isinstance(value, Tensor) and value.dim() > 0 and len(value) == 1
    return torch.cat([value] * _ROWS) if is_row else value


def _read_back(written: Path, out: Path) -> Program:
    """The program as the service reads it, with the check of its rows."""
    source = ModelSource(out.stem, written, f"file {out}", sha256_of(written)[:12])
    placement = place("cpu", "float32")
    return check_rows(Program(source, read_program(written, placement.device), placement))


def _compare(
    program: Program, module: torch.nn.Module, positional: tuple[Any, ...], named: Mapping[str, Any], entry: str
) -> None:
    """Raise ModelSourceError where the program and the module compute other values for the example."""
    tensors = [one for one in pytree.tree_leaves((positional, dict(named))) if isinstance(one, Tensor)]
    given = {spec.name: HostTensor.of(one) for spec, one in zip(program.contract.inputs, tensors, strict=True)}
    got = program.run(given)
    with torch.inference_mode():
        expected = [one for one in pytree.tree_leaves(module(*positional, **named)) if isinstance(one, Tensor)]
    for (name, one), want in zip(got.items(), expected, strict=True):
        if not torch.allclose(one.to_torch(), want, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise _export_error(entry, f"the program's output {name} differs from the module's for the example inputs")


def _scores_of(program: Program, normal: Path, description: Description) -> tuple[float, ...]:
    """The scores of normal inputs, by the output that is described."""
    [spec, *others] = program.contract.inputs
    if others:
        raise _export_error(str(normal), f"expected a program with one input, got {len(others) + 1}", "normal")
    inputs = _read_array(normal, spec.dtype)
    described = completed(replace(description, calibration=(0.0,)), program.contract, "normal")
    fixed = spec.shape[0] if program.contract.batch is None else None
    scores: list[float] = []
    for rows in _batches(inputs, program.contract.most_rows, fixed if isinstance(fixed, int) else None):
        program.contract.check({spec.name: rows})
        scores += described.rows_of(program.run({spec.name: rows}))[:, 0].tolist()
    del scores[len(inputs.values) :]
    if not np.isfinite(scores).all():
        raise _export_error(str(normal), "expected inputs with finite scores, got NaN or infinity for some", "normal")
    return tuple(scores)


def _batches(inputs: HostTensor, most: int | None, fixed: int | None) -> Iterator[HostTensor]:
    """The rows in batches that a program takes; with a fixed size, the last one is filled up with the first rows."""
    count, step = len(inputs.values), fixed or min(most or _CALIBRATED_AT_ONCE, _CALIBRATED_AT_ONCE)
    for begin in range(0, count, step):
        end = begin + step if fixed else min(begin + step, count)
        yield HostTensor(inputs.dtype, inputs.values[np.arange(begin, end) % count])


def _read_array(file: Path, dtype: str) -> HostTensor:
    """A file of NumPy as rows. Raises ModelSourceError for what is none."""
    try:
        values = np.load(file, allow_pickle=False)
        if not isinstance(values, np.ndarray) or not values.ndim:
            raise TypeError(f"got {type(values).__name__}")
        return HostTensor.of(torch.from_numpy(values).to(TORCH_DTYPES[dtype]))
    except (OSError, EOFError, TypeError, ValueError) as error:
        raise _export_error(str(file), f"expected an array of rows that numpy.save wrote: {error}", "normal") from error


@contextmanager
def _explaining(entry: str, what: str, remedy: str) -> Iterator[None]:
    """Turn errors of the caller's code, and of torch.export, into ModelSourceErrors."""
    try:
        yield
    except SondeError:
        raise
    except Exception as error:  # code of the caller may raise anything
        reason = (str(error).strip().splitlines() or [""])[0][:500]
        raise _export_error(entry, f"{what}: {type(error).__name__}: {reason}; {remedy}") from error


def _export_error(what: str, message: str, param: str = "entry") -> ModelSourceError:
    return ModelSourceError(f"{what}: {message}", param=param)
