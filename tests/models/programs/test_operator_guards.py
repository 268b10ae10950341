"""Operators that would read beyond a tensor, or end the process: their checks, which let good arguments through."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule

from models.programs.graph import _require_kind
from models.programs.operator_guards import guarded
from models.programs.operators import aten_operator, schema_of
from models.programs.schema import Argument

LEAST = torch.iinfo(torch.int64).min
ONE, TWO = torch.ones(1), torch.ones(2)
TABLE = torch.arange(40.0).view(10, 4)
IDS = torch.tensor([1, 2, 3])


def _operator(name: str) -> OpOverload:
    found = aten_operator(f"torch.ops.aten.{name}")
    assert found is not None
    return found


def _heads(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("name", "arguments", "keywords"),
    [
        ("div.Tensor_mode", (torch.tensor([7, LEAST]), torch.tensor([2, -1])), {"rounding_mode": "trunc"}),
        ("div.Scalar_mode", (torch.tensor([LEAST]), -1), {"rounding_mode": "trunc"}),
        ("div_.Tensor_mode", (torch.tensor([-128], dtype=torch.int8), torch.tensor(-1)), {"rounding_mode": "trunc"}),
        ("divide.Tensor_mode", (torch.tensor([LEAST]), torch.tensor([-1])), {"rounding_mode": "trunc"}),
        ("embedding_bag.default", (TABLE, IDS, torch.tensor([0, -(10**7), 1])), {}),
        ("embedding_bag.padding_idx", (TABLE, IDS, torch.tensor([0, 9]), False, 0, False, None, False, None), {}),
        ("embedding_bag.default", (TABLE, IDS.view(3, 1), torch.tensor([[0]])), {}),
        ("_native_batch_norm_legit_no_training.default", (_heads(1, 999), ONE, ONE, ONE, ONE, 0.1, 1e-5), {}),
        ("native_batch_norm.default", (_heads(1, 999), None, None, ONE, ONE, False, 0.1, 1e-5), {}),
        ("native_batch_norm.default", (_heads(1, 2), None, None, None, None, False, 0.1, 1e-5), {}),
        ("_native_batch_norm_legit.no_stats", (_heads(1, 2), None, None, False, 0.1, 1e-5), {}),
        ("_native_batch_norm_legit.no_stats", (ONE, None, None, True, 0.1, 1e-5), {}),
        ("_fft_c2c.default", (torch.ones(9, dtype=torch.complex64), [2**40], 0, True), {}),
        ("_fft_r2c.default", (ONE, [-1], 0, True), {}),
        ("_weight_norm.default", (_heads(3, 3), torch.ones(1, 0), 1), {}),
        ("_scaled_dot_product_flash_attention_for_cpu.default", (_heads(1, 1, 2, 4),) * 2 + (_heads(1, 1, 9, 4),), {}),
        ("_scaled_dot_product_flash_attention_for_cpu.default", (_heads(1, 1, 2, 4),) * 2 + (_heads(1, 2, 2, 4),), {}),
        ("_scaled_dot_product_flash_attention_for_cpu.default", (_heads(1, 1, 0, 4),) * 3, {}),
        ("_scaled_dot_product_flash_attention_for_cpu.default", (_heads(1, 1, 2, 4),) * 3, {"attn_mask": _heads(2, 9)}),
    ],
)
def test_what_would_crash_is_refused(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="was given sizes or values that do not fit each other"):
        guarded(_operator(name))(*arguments, **keywords)


@pytest.mark.parametrize(
    ("name", "arguments", "keywords"),
    [
        ("div.Tensor_mode", (torch.tensor([7, LEAST + 1]), torch.tensor([2, -1])), {"rounding_mode": "trunc"}),
        ("div.Tensor_mode", (torch.tensor([LEAST]), torch.tensor([-1])), {"rounding_mode": "floor"}),
        ("div.Tensor_mode", (torch.tensor([-1e30]), torch.tensor([-1])), {"rounding_mode": "trunc"}),
        ("div.Tensor", (torch.tensor([3]), torch.tensor([-1])), {}),
        ("embedding_bag.default", (TABLE, IDS, torch.tensor([0, 2])), {}),
        ("embedding_bag.default", (TABLE, IDS, torch.tensor([0, 3])), {"include_last_offset": True}),
        ("_native_batch_norm_legit_no_training.default", (_heads(3, 2), None, TWO, TWO, TWO, 0.1, 1e-5), {}),
        ("native_batch_norm.default", (_heads(3, 2), None, None, None, None, True, 0.1, 1e-5), {}),
        ("_fft_r2c.default", (TWO, [0], 0, True), {}),
        ("_weight_norm.default", (_heads(3, 2), torch.ones(3, 1)), {}),
        ("_scaled_dot_product_flash_attention_for_cpu.default", (_heads(2, 4, 5, 8),) * 3, {}),
        (
            "_scaled_dot_product_flash_attention_for_cpu.default",
            (_heads(2, 4, 5, 8), _heads(2, 4, 6, 8), _heads(2, 4, 6, 8)),
            {"attn_mask": torch.zeros(2, 1, 1, 6)},
        ),
    ],
)
def test_what_fits_is_computed(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    found = _operator(name)
    expected, got = found(*arguments, **keywords), guarded(found)(*arguments, **keywords)
    pairs = [(expected, got)] if isinstance(expected, torch.Tensor) else list(zip(expected, got, strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)


def test_operators_of_one_graph_keep_their_checks() -> None:
    graph = Graph()
    x, y, offsets = (graph.placeholder(name) for name in ("x", "y", "offsets"))
    quotient = graph.call_function(guarded(_operator("div.Tensor_mode")), (x, y), {"rounding_mode": "trunc"})
    bags = graph.call_function(guarded(_operator("embedding_bag.default")), (graph.placeholder("table"), x, offsets))
    graph.output((quotient, graph.call_function(lambda pair: pair[0], (bags,))))
    module = GraphModule(torch.nn.Module(), graph)
    begin = torch.tensor([0])
    quotients, rows = module.forward(torch.tensor([4]), torch.tensor([1]), begin, TABLE)
    assert (quotients.item(), rows.shape) == (4, (1, 4))
    with pytest.raises(ValueError, match="div was given"):
        module.forward(torch.tensor([LEAST]), torch.tensor([-1]), begin, TABLE)
    with pytest.raises(ValueError, match="embedding_bag was given"):
        module.forward(torch.tensor([4]), torch.tensor([1]), begin - 2, TABLE)


@pytest.mark.parametrize("name", ["remainder.int", "remainder.default", "add.int", "to.prim_dtype", "_stack.default"])
def test_arithmetic_of_numbers_is_no_operator_of_the_list(name: str) -> None:
    assert aten_operator(f"torch.ops.aten.{name}") is None


@pytest.mark.parametrize("name", ["_assert_scalar.default", "sym_size.int", "arange.default", "item.default"])
def test_operators_of_numbers_and_tensors_are(name: str) -> None:
    assert aten_operator(f"torch.ops.aten.{name}") is not None


@pytest.mark.parametrize(
    ("operator", "argument"),
    [("arange.default", "dtype"), ("zeros_like.default", "layout"), ("clone.default", "memory_format")],
)
def test_a_number_is_no_dtype_layout_or_memory_format(operator: str, argument: str) -> None:
    declared = next(one for one in schema_of(_operator(operator)).arguments if one.name == argument)
    _require_kind(declared, Argument(as_none=True))
    for good in (Argument(as_scalar_type=1), Argument(as_layout=1), Argument(as_memory_format=1)):
        if good.kind.endswith("scalar_type" if argument == "dtype" else argument):
            _require_kind(declared, good)
    with pytest.raises(ValueError, match=f"for {argument}, got as_int"):
        _require_kind(declared, Argument(as_int=-2))
