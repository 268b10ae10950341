"""Autotuning of attention in float32 and bfloat16 between rows in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from models.text.packed import attention_autotune
from models.text.packed.attention import NO_SIZE
from models.text.packed.attention_autotune import autotune_attention
from models.text.packed.packed_batch import SHARED

Ways = Mapping[int, Callable[[], object]]


@pytest.mark.parametrize(
    ("faster_at", "least"),
    [({32, 64, 96, 128, 256}, 32), ({32, 128, 256}, 128), ({32, 128}, NO_SIZE), (set(), NO_SIZE)],
)
def test_bfloat16_must_be_faster_for_all_larger_blocks(
    faster_at: set[int], least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([256, 128, 96, 64, 32])

    def time_in_turn(ways: Ways, seconds: float) -> dict[int, float]:
        assert [compute() is not None for compute in ways.values()] == [True, True]
        return {SHARED: 1.0, NO_SIZE: 1.1 if next(sizes) in faster_at else 1.0}

    monkeypatch.setattr(attention_autotune, "time_in_turn", time_in_turn)
    assert autotune_attention(2, 8) == least


def test_attention_is_autotuned_here() -> None:
    assert autotune_attention(2, 8) in (32, 64, 96, 128, 256, NO_SIZE)


def test_autotuning_that_fails_leaves_float32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(ways: Ways, seconds: float) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(attention_autotune, "time_in_turn", fail)
    assert autotune_attention(2, 8) == NO_SIZE
    assert "stays in float32: no memory" in caplog.text
