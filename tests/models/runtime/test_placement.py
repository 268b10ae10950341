"""Devices and precisions are chosen with a reason, or refused with one."""

from __future__ import annotations

import math

import pytest
import torch

from models.errors import ModelError
from models.runtime import placement
from models.runtime.placement import place, place_sensor
from models.runtime.product_autotune import ProductAutotune, ProductTimes

CPU = place("cpu", "float32")


def test_what_is_asked_for_is_taken() -> None:
    assert (CPU.device, CPU.dtype) == (torch.device("cpu"), torch.float32)
    assert CPU.reason == "device cpu as asked; float32 as asked"


@pytest.mark.parametrize(
    ("gain", "dtype", "reason"),
    [
        (1.8, "bfloat16", "bfloat16 since it multiplies 1.8 times as fast as float32 here"),
        (1.1, "float32", "float32 since bfloat16 multiplies only 1.10 times as fast here"),
        (0.5, "float32", "float32 since it multiplies 2.0 times as fast as bfloat16 here"),
        (0.0, "float32", "float32 since PyTorch multiplies bfloat16 slowly or not at all on this processor"),
    ],
)
def test_bfloat16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, gain: float, dtype: str, reason: str
) -> None:
    seconds = 1 / gain if gain else math.inf
    tuned = ProductAutotune(ProductTimes(seconds, seconds), ProductTimes(1.0, 2.0), ProductTimes(2.0, 1.0))
    monkeypatch.setattr(placement, "autotune_products", lambda: tuned)
    chosen = place("cpu", "auto")
    assert chosen.dtype_name == dtype
    assert chosen.reason == f"device cpu as asked; {reason}"


def test_cuda_comes_first_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    chosen = place()
    assert (chosen.device.type, chosen.dtype_name) == ("cuda", "bfloat16")


@pytest.mark.parametrize(("gpu", "device"), [("cuda", "cuda"), ("mps", "cpu"), (None, "cpu")])
def test_numbers_are_fitted_where_there_is_float64(
    monkeypatch: pytest.MonkeyPatch, gpu: str | None, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: gpu == "mps")
    chosen = place_sensor()
    assert (chosen.device.type, chosen.dtype_name) == (device, "float64")
    assert "float64" in chosen.reason


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"'cuda' was asked for, but PyTorch sees only: .*cpu"):
        place("cuda")
