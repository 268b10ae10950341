"""Training takes autocast where autotuning or the user says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.runtime.autotune_cache import AutotuneCache
from models.runtime.placement import Placement, place
from models.training.tuning import step_autotune
from models.training.tuning.step_autotune import StepAutotune, autotune_steps, choose_autocast

AUTO = replace(place("cpu", "float32"), auto_dtype=True)
AUTO_BFLOAT16 = replace(AUTO, dtype=torch.bfloat16)
GPU = Placement(torch.device("cuda"), torch.bfloat16, "a CUDA device is present", auto_dtype=True)


@pytest.mark.parametrize("placement", [AUTO, AUTO_BFLOAT16])
@pytest.mark.parametrize(("gain", "half"), [(1.5, True), (1.1, False), (0.5, False)])
def test_autotuning_decides_where_no_dtype_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, placement: Placement, gain: float, half: bool
) -> None:
    monkeypatch.setattr(step_autotune, "autotune_steps", lambda: StepAutotune(1.0, gain))
    assert choose_autocast(placement) == (
        half,
        f"a training step in bfloat16 is {gain:.2f} times as fast as in float32 here",
    )


@pytest.mark.parametrize(
    ("placement", "half"), [(place("cpu", "float32"), False), (place("cpu", "bfloat16"), True), (GPU, True)]
)
def test_what_was_asked_for_is_taken_and_gpus_are_not_autotuned(
    monkeypatch: pytest.MonkeyPatch, placement: Placement, half: bool
) -> None:
    monkeypatch.setattr(step_autotune, "autotune_steps", lambda: pytest.fail("no measurement was needed"))
    assert choose_autocast(placement)[0] is half


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("could not create a primitive")])
def test_autotuning_that_fails_leaves_float32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(step_autotune, "autotune_cache", AutotuneCache())  # where other tests have kept nothing
    monkeypatch.setattr(step_autotune, "_step", fail)
    assert choose_autocast(AUTO_BFLOAT16) == (False, "training steps could not be autotuned")
    assert "so training is in float32" in caplog.text


@pytest.mark.slow
def test_autotuning_leaves_threads_and_random_numbers_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_autotune, "autotune_cache", AutotuneCache())
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    tuned = autotune_steps()
    assert 0 < tuned.float32 < 10
    assert 0 < tuned.bfloat16 < 10
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before)
