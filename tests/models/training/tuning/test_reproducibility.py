"""The seed of a step reaches every generator in use."""

from __future__ import annotations

import pytest
import torch

from models.training.tuning.reproducibility import seed_step


def test_a_step_seeds_the_processor_and_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, apple, drawn = list[int](), list[int](), list[float]()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "manual_seed", apple.append)
    with torch.random.fork_rng([]):
        for step in (1, 2, 1):
            seed_step(7, step)
            drawn.append(torch.rand(1).item())
    for found in (seeds, apple, drawn):
        assert found[0] == found[2] != found[1]
