from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.programs.tensors import HostTensor
from tests.support.export_programs import (
    Branches,
    Centred,
    Constant,
    Convolution,
    Doubled,
    Fixed,
    Half,
    Mlp,
    Multiples,
    Words,
)
from tests.support.programs import open_program

GENERATOR = torch.Generator().manual_seed(1)


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR).to(dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module", "inputs"),
    [
        ("mlp", Mlp(), {"x": _random(5, 16)}),
        ("mlp", Mlp(), {"x": _random(1, 16)}),
        ("convolution", Convolution(), {"image": _random(3, 3, 33, 40), "gain": _random(3)}),
        ("branches", Branches(), {"x": _random(4, 3)}),
        ("branches", Branches(), {"x": -_random(4, 3).abs() * 9}),
        ("multiples", Multiples(), {"x": _random(2, 24)}),
        ("doubled", Doubled(), {"x": _random(5, 3), "y": _random(10, 3)}),
        ("words", Words(), {"ids": torch.randint(0, 50, (3, 5), generator=GENERATOR)}),
        ("centred", Centred(), {"x": _random(4, 16)}),
        ("fixed", Fixed(), {"x": _random(2, 16)}),
        ("constant", Constant(), {"x": _random(3, 3)}),
        ("half", Half(), {"x": _random(3, 4, dtype=torch.bfloat16)}),
    ],
)
def test_a_program_computes_what_its_module_does(
    name: str, module: torch.nn.Module, inputs: dict[str, torch.Tensor]
) -> None:
    program = open_program(name)
    module.eval()
    _copy_weights(program.weights(), module)
    with torch.inference_mode():
        expected = [one for one in _leaves(module(**inputs)) if isinstance(one, torch.Tensor)]
    got = program.run({key: HostTensor.of(value) for key, value in inputs.items()})
    assert [spec.name for spec in program.contract.outputs] == list(got)
    for one, want in zip(got.values(), expected, strict=True):
        assert one.dtype == str(want.dtype).removeprefix("torch.")
        assert torch.equal(one.to_torch(), want)


def _copy_weights(weights: list[torch.Tensor], module: torch.nn.Module) -> None:
    """Give a new module the weights of the program; torch.export keeps their order."""
    own: list[Any] = [*module.parameters(), *module.buffers()]
    for mine, read in zip(own, weights, strict=False):  # constants of the code follow
        mine.data = read.clone()


def _leaves(value: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(value)


def test_a_program_keeps_its_dtype_and_says_who_wrote_it() -> None:
    metadata = open_program("half").metadata
    assert metadata.dtype == "bfloat16"
    assert metadata.reason.endswith("bfloat16 as the program has it")
    assert metadata.architecture.startswith("torch.export of PyTorch 2.")
    assert metadata.task == "inference"


def test_a_host_tensor_of_bfloat16_knows_what_is_not_finite() -> None:
    for value, finite in [(1.0, True), (0.0, True), (float("nan"), False), (float("-inf"), False)]:
        assert HostTensor.of(torch.tensor([2.0, value], dtype=torch.bfloat16)).is_finite is finite
        assert HostTensor("float32", np.array([2.0, value], np.float32)).is_finite is finite


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 16, 5000])
def test_a_host_tensor_knows_what_is_not_finite_whatever_its_size_and_its_largest_value(dtype: str, size: int) -> None:
    values = np.full((1, size), np.finfo(dtype).max, dtype)
    assert HostTensor(dtype, values).is_finite
    assert HostTensor(dtype, np.zeros((1, size), dtype)).is_finite
    for wrong in (np.nan, np.inf, -np.inf):
        values[:, -1:] = wrong
        assert HostTensor(dtype, values).is_finite is (size == 0)
