"""Golden tensors: a registered program must give the outputs again that it gave when it was registered."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from models.errors import ArtifactError
from models.programs.contract import Contract
from models.programs.program import Program, Tensors
from models.programs.row_check import TOLERANCES, find_difference, sample_inputs
from models.programs.tensors import HostTensor

GOLDEN = "golden.safetensors"
_ROWS = 3
_INPUT, _OUTPUT = "input.", "output."


def write_golden(folder: Path, program: Program) -> str:
    """Write random inputs that keep to the contract, and the outputs for them; why there are none, or empty."""
    inputs = sample_inputs(program.contract, _ROWS)
    if inputs is None:
        return "no inputs were found that keep to the contract's conditions"
    try:
        outputs, again = program.run(inputs), program.run(inputs)
    except Exception as error:  # a program may raise anything for values that it was not made for
        return f"it does not compute random inputs ({type(error).__name__})"
    if not all(tensor.is_finite for tensor in outputs.values()):
        return "it gives NaN or infinity for random inputs"
    if not all(_is_same(one, outputs[name]) for name, one in again.items()):
        return "it gives other outputs for the same inputs"
    save_file(_prefixed(inputs, _INPUT) | _prefixed(outputs, _OUTPUT), folder / GOLDEN)
    return ""


def reproduce(folder: Path, program: Program) -> bool:
    """Run the golden inputs, if there are any; whether there are. Raises ArtifactError when an output differs."""
    if not (folder / GOLDEN).is_file():
        return False
    inputs, expected = _read(folder / GOLDEN, program.contract)
    for name, got in program.run(inputs).items():
        wanted = expected[name]
        if got.dtype != wanted.dtype or got.shape != wanted.shape:
            about = f"expected {wanted.dtype} {list(wanted.shape)}, got {got.dtype} {list(got.shape)}"
            raise ArtifactError(f"golden inputs: output {name}: {about}")
        difference, allowed = find_difference(got, wanted), TOLERANCES.get(got.dtype, 0.0)
        if not difference <= allowed:  # so that NaN is refused, too
            raise ArtifactError(
                f"golden inputs: output {name} differs by {difference:.3g} of its largest value from what it was when "
                f"the program was registered, {allowed:.3g} are allowed"
            )
    return True


def _is_same(got: HostTensor, expected: HostTensor) -> bool:
    return got.shape == expected.shape and find_difference(got, expected) <= TOLERANCES.get(got.dtype, 0.0)


def _prefixed(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor.to_torch() for name, tensor in tensors.items()}


def _read(file: Path, contract: Contract) -> tuple[Tensors, Tensors]:
    """The inputs and the outputs. Raises ArtifactError for those of another contract."""
    tensors = {name: HostTensor.of(tensor) for name, tensor in load_file(file).items()}
    names = [f"{_INPUT}{spec.name}" for spec in contract.inputs] + [
        f"{_OUTPUT}{spec.name}" for spec in contract.outputs
    ]
    if sorted(names) != sorted(tensors):
        raise ArtifactError(f"golden inputs: expected {', '.join(names)}, got {', '.join(tensors)}"[:500])
    inputs = {spec.name: tensors[f"{_INPUT}{spec.name}"] for spec in contract.inputs}
    contract.check(inputs)
    return inputs, {spec.name: tensors[f"{_OUTPUT}{spec.name}"] for spec in contract.outputs}
