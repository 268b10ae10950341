"""The race of products: what wins, and ways that cannot run."""

from __future__ import annotations

import math

import pytest
import torch

from models.runtime import product_race
from models.runtime.product_race import ProductRace, ProductTimes, race_products

NEVER = ProductTimes(math.inf, math.inf)


def test_a_gain_is_the_geometric_mean_over_few_rows_and_many() -> None:
    race = ProductRace(ProductTimes(1.0, 1.0), ProductTimes(4.0, 9.0), ProductTimes(5.0, 4.0))
    assert race.bfloat16_gain == 4.0
    assert not race.onednn_wins


def test_what_cannot_run_gains_nothing() -> None:
    assert ProductRace(NEVER, NEVER, ProductTimes(1.0, 1.0)).bfloat16_gain == 0


def test_the_race_takes_part_with_what_this_machine_has_and_keeps_the_threads() -> None:
    threads = torch.get_num_threads()
    race = race_products.__wrapped__()
    assert 0 < race.mkl.few < race.mkl.many < 1
    assert torch.get_num_threads() == threads


def test_a_way_that_pytorch_refuses_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(weight: torch.Tensor, bias: torch.Tensor) -> None:
        raise RuntimeError("bf16 path needs the cpu support")

    monkeypatch.setattr(product_race, "_multiply_by_onednn", refuse)
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
