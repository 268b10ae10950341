"""Products of 8-bit integers by both libraries, against exact arithmetic on the rounded values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from models.runtime import product_autotune
from models.runtime.fbgemm import has_fbgemm
from models.runtime.int8_product import FbgemmProduct, OnednnProduct, round_weights

pytestmark = pytest.mark.skipif(not has_fbgemm(), reason="PyTorch has no FBGEMM here")


@pytest.mark.parametrize("product", [FbgemmProduct, OnednnProduct])
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("stored", ["by rows", "by columns"])
def test_products_are_those_of_the_rounded_values(product: Any, activation: str, stored: str) -> None:
    torch.manual_seed(1)
    rows, bias = torch.randn(37, 48).clamp(-2, 2), torch.randn(24)  # up to 2 / 0.03 + 60 = 127 steps: no sum overflows
    weight = torch.randn(24, 48) if stored == "by rows" else torch.randn(48, 24).t()
    got = product(weight, bias)(rows, 0.03, 60, activation)
    seen = ((rows / 0.03).round() + 60).clamp(0, 255).sub(60) * 0.03
    integers, scales = round_weights(weight)
    right = functional.linear(seen, integers.float() * scales[:, None], bias)
    torch.testing.assert_close(got, functional.gelu(right) if activation == "gelu" else right, atol=1e-4, rtol=1e-4)


def test_both_saturate_alike() -> None:
    torch.manual_seed(1)
    rows, weight = 3 * torch.randn(37, 48), torch.randn(24, 48).sign()
    one, other = (product(weight, None)(rows, 0.02, 128) for product in (FbgemmProduct, OnednnProduct))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx512_vnni"), reason="sums overflow without VNNI")
def test_onednn_is_exact_here_for_the_largest_values() -> None:
    product_autotune._exact_onednn(torch.ones(4, 4), torch.zeros(4))


def test_sums_that_overflow_keep_onednn_out_of_autotuning(monkeypatch: pytest.MonkeyPatch) -> None:
    class Saturated(OnednnProduct):
        def forward(self, *arguments: Any) -> torch.Tensor:
            return super().forward(*arguments).clamp(max=2**15)

    monkeypatch.setattr(product_autotune, "OnednnProduct", Saturated)
    ways = product_autotune._prepare()
    assert "onednn_int8" not in ways
    assert "int8" in ways
