"""Autotuning of products: what wins, and ways that cannot run."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import weakref
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch

from models.runtime import product_autotune
from models.runtime.autotune_cache import AutotuneCache
from models.runtime.product_autotune import ProductAutotune, ProductTimes, autotune_products

NEVER = ProductTimes(math.inf, math.inf)
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}

AVX512 = pytest.param(
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    marks=pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx512_vnni"), reason="the limit is no limit here"),
)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests measure anew, since other tests of the process may have kept results."""
    monkeypatch.setattr(product_autotune, "autotune_cache", AutotuneCache())


def test_a_gain_is_the_geometric_mean_over_few_rows_and_many() -> None:
    tuned = ProductAutotune(ProductTimes(1.0, 1.0), ProductTimes(4.0, 9.0), ProductTimes(5.0, 4.0))
    assert tuned.bfloat16_gain == 4.0
    assert not tuned.onednn_wins


def test_what_cannot_run_gains_nothing() -> None:
    assert ProductAutotune(NEVER, NEVER, ProductTimes(1.0, 1.0)).bfloat16_gain == 0


def test_int8_is_pointed_out_where_it_gains_much_over_what_is_chosen() -> None:
    one, half = ProductTimes(1.0, 1.0), ProductTimes(0.5, 0.5)
    slow, fast = (ProductAutotune(half, NEVER, one, ProductTimes(time, time)) for time in (0.45, 0.25))
    assert [(tuned.preferred, tuned.recommends_int8) for tuned in (slow, fast)] == [
        ("bfloat16", False),
        ("bfloat16", True),
    ]
    assert fast.int8_gain == 2.0
    without = replace(slow, bfloat16=NEVER)
    assert (without.preferred, without.recommends_int8) == ("float32", True)
    assert not ProductAutotune(half, NEVER, one).recommends_int8


def test_the_faster_int8_counts() -> None:
    one, half, third = (ProductTimes(time, time) for time in (1.0, 0.5, 0.25))
    tuned = ProductAutotune(NEVER, NEVER, one, half, third)
    assert (tuned.onednn_int8_wins, tuned.int8_gain) == (True, 4.0)
    assert replace(tuned, onednn_int8=one).int8_gain == 2.0
    assert not replace(tuned, onednn_int8=NEVER).onednn_int8_wins


@pytest.mark.parametrize(
    ("kernels", "onednn_wins"), [("AVX2", [False, False]), ("AVX512", [True, True]), ("DEFAULT", [True, False])]
)
def test_ways_that_are_close_leave_the_one_that_usually_leads(
    monkeypatch: pytest.MonkeyPatch, kernels: str, onednn_wins: list[bool]
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kernels)
    mkl = ProductTimes(1.0, 1.0)
    close = [ProductAutotune(NEVER, ProductTimes(1.0, many), mkl).onednn_wins for many in (0.97, 1.03)]
    clear = [ProductAutotune(NEVER, ProductTimes(1.0, many), mkl).onednn_wins for many in (0.9, 1.1)]
    assert (close, clear) == (onednn_wins, [True, False])


@pytest.mark.slow
def test_products_are_autotuned_with_what_this_machine_has() -> None:
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    engine = torch.backends.quantized.engine
    tuned = autotune_products.__wrapped__()
    assert 0 < tuned.mkl.few < tuned.mkl.many < 1
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before), "what is trained afterwards would depend on a kept result"
    assert torch.backends.quantized.engine == engine


def one_second_each(ways: Iterable[str], count: int, seconds: float) -> dict[str, float]:
    return dict.fromkeys(ways, 1.0)


def test_the_memory_of_products_is_returned_once_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, returned = list[weakref.ref[torch.Tensor]](), list[bool]()
    prepare = product_autotune._prepare

    def record() -> object:
        ways = prepare()
        weights.extend(weakref.ref(product.keywords["weight"]) for product in ways["mkl"])  # type: ignore[attr-defined]
        return ways

    monkeypatch.setattr(product_autotune, "_prepare", record)
    monkeypatch.setattr(product_autotune, "_MANY", 2)
    monkeypatch.setattr(product_autotune, "_MANY_SECONDS", 0.01)
    monkeypatch.setattr(
        product_autotune, "return_freed_memory", lambda: returned.extend(weight() is None for weight in weights)
    )
    autotune_products.__wrapped__()
    assert returned == [True] * 4


def test_a_way_that_pytorch_refuses_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(weight: torch.Tensor, bias: torch.Tensor) -> None:
        raise RuntimeError("bf16 path needs the cpu support")

    monkeypatch.setattr(product_autotune, "_by_onednn", refuse)
    monkeypatch.setattr(product_autotune, "_time", one_second_each)
    tuned = autotune_products.__wrapped__()
    assert (tuned.bfloat16, tuned.onednn, tuned.bfloat16_gain, tuned.onednn_wins) == (NEVER, NEVER, 0, False)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("no primitive")]
)
def test_where_autotuning_fails_pytorch_multiplies_in_float32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(product_autotune, "_prepare", fail)
    tuned = autotune_products.__wrapped__()
    assert (tuned.prefers_bfloat16, tuned.onednn_wins, tuned.onednn_wins_few) == (False, False, False)
    assert "so PyTorch multiplies in float32" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables are of libraries for x86")
@pytest.mark.parametrize("limits", [AVX2, AVX512], ids=["avx2", "avx512"])
def test_a_processor_without_bfloat16_computes_in_float32(limits: dict[str, str]) -> None:
    code = "from models.runtime.placement import place; print(place('cpu').dtype_name)"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | limits, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "float32\n"
