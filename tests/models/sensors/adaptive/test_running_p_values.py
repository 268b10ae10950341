"""Running p-values stay probabilities."""

from __future__ import annotations

import numpy as np

from models.sensors.adaptive.running_p_values import RunningPValues


def test_p_values_are_above_0_and_at_most_1() -> None:
    running = RunningPValues(highest=8.0, block=7)
    memory, chance = running.new_memory(), np.random.default_rng(0)
    for _ in range(20):
        p_values = running.p_values(chance.exponential(1.0, 500), memory)
        assert 0 < p_values.min() <= p_values.max() <= 1
    assert running.p_values(np.zeros(1), memory)[0] == 1
