"""The race of products: what wins, and ways that cannot run."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from models.runtime import product_race
from models.runtime.kept_races import KeptRaces
from models.runtime.product_race import ProductRace, ProductTimes, race_products

NEVER = ProductTimes(math.inf, math.inf)
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests measure anew, since other tests of the process may have kept races."""
    monkeypatch.setattr(product_race, "kept_races", KeptRaces())


def test_a_gain_is_the_geometric_mean_over_few_rows_and_many() -> None:
    race = ProductRace(ProductTimes(1.0, 1.0), ProductTimes(4.0, 9.0), ProductTimes(5.0, 4.0))
    assert race.bfloat16_gain == 4.0
    assert not race.onednn_wins


def test_what_cannot_run_gains_nothing() -> None:
    assert ProductRace(NEVER, NEVER, ProductTimes(1.0, 1.0)).bfloat16_gain == 0


def test_int8_is_pointed_out_where_it_gains_much_over_what_is_chosen() -> None:
    one, half = ProductTimes(1.0, 1.0), ProductTimes(0.5, 0.5)
    slow, fast = (ProductRace(half, NEVER, one, ProductTimes(time, time)) for time in (0.45, 0.25))
    assert [(race.preferred, race.recommends_int8) for race in (slow, fast)] == [
        ("bfloat16", False),
        ("bfloat16", True),
    ]
    assert fast.int8_gain == 2.0
    without = replace(slow, bfloat16=NEVER)
    assert (without.preferred, without.recommends_int8) == ("float32", True)
    assert not ProductRace(half, NEVER, one).recommends_int8


def test_the_faster_int8_counts() -> None:
    one, half, third = (ProductTimes(time, time) for time in (1.0, 0.5, 0.25))
    race = ProductRace(NEVER, NEVER, one, half, third)
    assert (race.onednn_int8_wins, race.int8_gain) == (True, 4.0)
    assert replace(race, onednn_int8=one).int8_gain == 2.0
    assert not replace(race, onednn_int8=NEVER).onednn_int8_wins


def test_the_race_takes_part_with_what_this_machine_has() -> None:
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    engine = torch.backends.quantized.engine
    race = race_products.__wrapped__()
    assert 0 < race.mkl.few < race.mkl.many < 1
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before), "what is trained afterwards would depend on a kept race"
    assert torch.backends.quantized.engine == engine


def test_a_way_that_pytorch_refuses_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(weight: torch.Tensor, bias: torch.Tensor) -> None:
        raise RuntimeError("bf16 path needs the cpu support")

    monkeypatch.setattr(product_race, "_by_onednn", refuse)
    race = race_products.__wrapped__()
    assert (race.bfloat16, race.onednn, race.bfloat16_gain, race.onednn_wins) == (NEVER, NEVER, 0, False)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("no primitive")]
)
def test_where_the_race_fails_pytorch_multiplies_in_float32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(product_race, "_prepare", fail)
    race = race_products.__wrapped__()
    assert (race.prefers_bfloat16, race.onednn_wins, race.onednn_wins_few) == (False, False, False)
    assert "so PyTorch multiplies in float32" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables are of libraries for x86")
@pytest.mark.parametrize("limits", [AVX2, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}], ids=["avx2", "avx512"])
def test_a_processor_without_bfloat16_computes_in_float32(limits: dict[str, str]) -> None:
    code = "from models.runtime.placement import place; print(place('cpu').dtype_name)"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | limits, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "float32\n"
