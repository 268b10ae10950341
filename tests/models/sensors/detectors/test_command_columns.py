"""Commands among the columns hide no fault of what is measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.sensors.detectors.command_columns import switch_scale
from models.sensors.fitting import fit_sensor
from models.sensors.model import Readings

COLUMNS = tuple(f"c{number}" for number in range(21))


def telemetry(rows: int, seed: int) -> Readings:
    """One measured column, 19 rare commands and one that was never sent."""
    random = np.random.default_rng(seed)
    value = random.standard_normal(rows)
    sent = (random.random((rows, 19)) < 0.003).astype(float)
    return np.column_stack([value, sent, np.zeros(rows)])


@pytest.mark.parametrize("detector", ["statistics", "residual", "ensemble"])
@pytest.mark.slow
def test_a_fault_beside_rare_commands_scores_above_them(detector: str) -> None:
    sensor = fit_sensor("series", detector, COLUMNS, [telemetry(2000, 0)])
    later = telemetry(1500, 1)
    later[1000:1060, 0] += np.where(np.arange(60) % 2 == 0, 5.0, -5.0)
    scores = sensor.score(later).scores
    normal = np.r_[scores[100:1000], scores[1100:]]
    assert scores[1030:1060].min() > np.quantile(normal, 0.99)


def test_switches_count_one_deviation_at_most_and_others_stay() -> None:
    runs = [torch.tensor([[0.1, 0.0, 5.0], [0.2, 1.0, 5.0]]), torch.tensor([[0.3, 0.0, 5.0]])]
    whitened = torch.tensor([[9.0, -30.0, 0.0, 1.0, 0.5, 0.0], [0.0, 4.0, 0.0, 7.0, 0.1, 0.0]])
    assert switch_scale(runs, whitened).tolist() == [1, 30, 1, 1, 1, 1]


def test_where_all_are_switches_they_are_what_is_measured() -> None:
    runs = [torch.tensor([[0.0, 5.0], [1.0, 5.0]])]
    assert switch_scale(runs, torch.tensor([[30.0, 0.0]])).tolist() == [1, 1]
