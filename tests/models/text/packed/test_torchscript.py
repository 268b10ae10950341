"""TorchScript: modules of one structure are compiled once."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.text.packed.torchscript import script_alike

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="there is no TorchScript")


class Shifted(nn.Module):
    """A product, a buffer, a number and the product again, under another name."""

    def __init__(self, outputs: int = 3, shift: float | str = 0.5) -> None:
        super().__init__()
        self.product = nn.Linear(3, outputs)
        self.same = self.product
        self.register_buffer("offset", torch.randn(outputs))
        self.shift = shift

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [n, 3] → [n, outputs]."""
        result: Tensor = self.same(self.product(rows) + self.offset) * self.shift
        return result


class Renamed(Shifted):
    """The same under another name."""


def test_each_copy_computes_with_its_own_values() -> None:
    modules = [Shifted(shift=shift) for shift in (0.5, 2.0, 3.0)]
    rows = torch.randn(4, 3)
    scripted = script_alike(modules)
    assert all(isinstance(one, torch.jit.ScriptModule) for one in scripted)
    for one, module in zip(scripted, modules, strict=True):
        torch.testing.assert_close(one(rows), module(rows))


def test_copies_hold_the_weights_of_their_modules_and_no_second_ones() -> None:
    modules = [Shifted(), Shifted()]
    for one, module in zip(script_alike(modules), modules, strict=True):
        assert one.product.weight.data_ptr() == module.product.weight.data_ptr()


@pytest.mark.parametrize("other", [lambda: Shifted(4), Renamed], ids=["a constant", "a class"])
def test_a_module_that_differs_in_more_than_values_is_refused(other: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"expected .*, got .*: compile it by itself"):
        script_alike([Shifted(), other()])


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(RuntimeError, match="shift"):
        script_alike([Shifted(), Shifted(shift="twice")])
