"""The check at load that a program's rows do not depend on the rows beside them, and that it keeps its weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np

from models.errors import ModelSourceError, SondeError
from models.programs.contract import Contract, Described, TensorSpec
from models.programs.expressions import Expression
from models.programs.program import Program, Tensors
from models.programs.tensors import NUMPY_DTYPES, HostTensor

log = logging.getLogger(__name__)

# The most by which values may differ, as a share of the largest. Batches of another size round differently.
TOLERANCES = {"float64": 1e-6, "float32": 1e-3, "float16": 0.03, "bfloat16": 0.07}
# Sizes to try, where the contract leaves them open.
_SIZES = (8, 16, 32, 64, 128, 224, 512, 1)
_ROWS = 3
# The most numbers of a sample: what takes gigabytes is not tried.
_MAX_NUMBERS = 1 << 26


def check_rows(program: Program) -> Program:
    """The program, whose metadata says whether rows of several requests share a batch.

    Raises ModelSourceError for one that changes its weights while it runs.
    """
    if why := _find_dependence(program):
        log.warning("program %s computes one request at a time: %s", program.metadata.name, why)
        program.describe(batches=f"one request at a time: {why}", one_by_one=True)
    else:
        program.describe(batches=f"rows of several requests share a batch; {_ROWS} rows were compared with each alone")
    return program


def _find_dependence(program: Program) -> str:
    """Why rows must not share a batch; empty where they may."""
    contract = program.contract
    together = sample_inputs(contract, _ROWS)
    if together is not None:
        try:
            expected = program.run(together)
        except SondeError:
            raise
        except Exception as error:  # a program may raise anything for values that it was not made for
            return f"it could not be tried ({type(error).__name__}: {error})"[:300]
        _require_stated(program, expected)
    if contract.batch is None:
        return "not all of its inputs and outputs begin with one size that varies"
    if together is None:
        return "no sizes were found that keep to its conditions"
    return _compare_alone(program, together, expected)


def _require_stated(program: Program, outputs: Tensors) -> None:
    """Raise ModelSourceError for outputs of another dtype, or another number of dimensions, than the file states."""
    for spec in program.contract.outputs:
        got = outputs[spec.name]
        if got.dtype != spec.dtype or len(got.shape) != len(spec.shape):
            stated = f"{spec.dtype} with {len(spec.shape)} dimensions"
            raise ModelSourceError(
                f"{program.metadata.name}: its output {spec.name} is stated as {stated}, and is {got.dtype} "
                f"{list(got.shape)}: export it again",
                param="model",
            )


def _compare_alone(program: Program, together: Tensors, expected: Tensors) -> str:
    """Compare each row of a batch with the row alone."""
    for row in range(len(next(iter(together.values())).values)):
        try:
            alone = program.run({name: tensor.rows(row, row + 1) for name, tensor in together.items()})
        except SondeError:
            raise
        except Exception as error:  # as above
            return f"it computes no row alone ({type(error).__name__}: {error})"[:300]
        for name, tensor in alone.items():
            if tensor.shape != expected[name].rows(row, row + 1).shape:
                return f"{name} of one row has shape {list(tensor.shape)}"
            difference = find_difference(tensor, expected[name].rows(row, row + 1))
            if difference > TOLERANCES.get(tensor.dtype, 0.0):
                return f"a row of {name} depends on the others of its batch, by {difference:.1%} of the largest value"
    return ""


def find_difference(got: HostTensor, expected: HostTensor) -> float:
    """The largest difference of two tensors as a share of the largest value; infinite where either is not finite."""
    a, b = (tensor.to_torch().double().numpy() for tensor in (got, expected))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.abs(a - b).max(initial=0.0) / (np.abs(b).max(initial=0.0) or 1.0))


def sample_inputs(contract: Contract, rows: int) -> dict[str, HostTensor] | None:
    """Random inputs of at most `rows` rows that keep to the contract; None where no sizes were found for them."""
    random = np.random.default_rng(0)
    for size in _SIZES:
        sizes = {name: max(size, limits.least) for name, limits in contract.limits.items()}
        sizes = {name: min(one, contract.limits[name].most or one) for name, one in sizes.items()}
        if contract.batch is not None:
            sizes[contract.batch] = min(rows, contract.most_rows or rows)
        try:
            described = {spec.name: Described(spec.dtype, _shape(spec, sizes)) for spec in contract.inputs}
            contract.check(described)
        except (SondeError, ArithmeticError):
            continue
        if sum(math.prod(one.shape) for one in described.values()) <= _MAX_NUMBERS:
            return {
                name: HostTensor(one.dtype, _values(random, one.dtype, one.shape)) for name, one in described.items()
            }
    return None


def _shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(one.value(sizes) if isinstance(one, Expression) else one or 0 for one in spec.shape)


def _values(random: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype]:
    """Random values: zeros and ones of integers, which all tables have rows for."""
    if dtype == "bfloat16":
        return (random.standard_normal(shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if "float" in dtype:
        return random.standard_normal(shape).astype(NUMPY_DTYPES[dtype])
    return random.integers(0, 2, shape).astype(NUMPY_DTYPES[dtype])
