"""Autotuning of weights in float16."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from models.runtime.autotune_cache import AutotuneCache
from models.runtime.fbgemm import has_fbgemm
from models.text.packed import float16_autotune
from models.text.packed.float16_autotune import autotune_float16
from models.text.packed.linear import Linear

pytestmark = pytest.mark.skipif(not has_fbgemm(), reason="PyTorch has no FBGEMM here")


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float16_autotune, "autotune_cache", AutotuneCache())


@pytest.fixture
def layers() -> list[Linear]:
    both = [Linear(24, 40).requires_grad_(False), Linear(40, 24).requires_grad_(False)]
    for one in both:
        one.round_to_float16()
    return both


@pytest.mark.parametrize(
    ("gains", "max_rows"),
    [
        ({32: 1.1, 64: 0.98, 128: 0.95, 256: 0.9}, 32),
        ({32: 1.1, 64: 1.2, 128: 1.01, 256: 0.99}, 128),
        ({32: 1.1, 256: 1.0}, 256),
        ({8: 2.0, 16: 1.5, 24: 1.04, 32: 0.9}, 16),
        ({8: 1.04, 16: 1.0, 24: 0.9, 32: 0.9}, 0),
    ],
)
def test_the_most_rows_that_gain_enough_win(
    layers: list[Linear], gains: Mapping[int, float], max_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def time_in_turn(ways: Mapping[int, Callable[[], object]], seconds: float) -> dict[int, float]:
        for limit, multiply in ways.items():
            multiply()
            assert {one.float16_max_rows for one in layers} == {limit}
        exact, rows = ways
        return {exact: 1.0, rows: 1 / gains[rows]}

    monkeypatch.setattr(float16_autotune, "time_in_turn", time_in_turn)
    assert autotune_float16(layers) == max_rows


def test_many_rows_are_tried_on_the_first_layers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: dict[int, int] = {}

    def gain(layers: Sequence[Linear], rows: int) -> float:
        tried[rows] = len(layers)
        return 0.9 if rows > 64 else 1.1

    monkeypatch.setattr(float16_autotune, "_gain", gain)
    layers = [Linear(1024, 1024) for _ in range(5)]
    assert autotune_float16(layers) == 64
    assert tried == {32: 5, 256: 2, 128: 2, 64: 2}


def test_autotuning_runs_here(layers: list[Linear]) -> None:
    assert autotune_float16(layers) in (0, 8, 16, 24, 32, 64, 128, 256)


def test_autotuning_that_fails_leaves_float32(
    layers: list[Linear], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(ways: object, seconds: float) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(float16_autotune, "time_in_turn", fail)
    assert autotune_float16(layers) == 0
    assert "stay in float32: no memory" in caplog.text
