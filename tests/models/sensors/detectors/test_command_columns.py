"""Commands among the columns hide no fault of what is measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.sensors.detectors.command_columns import switch_scale
from models.sensors.detectors.detector import SensorDetector
from models.sensors.detectors.level import LevelDetector
from models.sensors.detectors.residual import ResidualDetector
from models.sensors.detectors.window_statistics import StatisticsDetector
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
    assert switch_scale(runs, whitened, lambda _: torch.zeros(6)).tolist() == [1, 30, 1, 1, 1, 1]
    assert switch_scale(runs, whitened, lambda _: torch.full((6,), 40.0)).tolist() == [1, 40, 40, 1, 40, 40]
    assert switch_scale(runs, whitened, lambda ranges: 100 * ranges.repeat(2)).tolist() == [1, 100, 1, 1, 100, 1]


def test_where_all_are_switches_they_are_what_is_measured() -> None:
    runs = [torch.tensor([[0.0, 5.0], [1.0, 5.0]])]
    assert switch_scale(runs, torch.tensor([[30.0, 0.0]]), lambda ranges: 40 * ranges).tolist() == [1, 1]


@pytest.mark.parametrize("make", [LevelDetector, ResidualDetector, StatisticsDetector])
def test_a_switch_that_changed_between_runs_alone_counts_one_where_it_changes(
    make: Callable[[int], SensorDetector],
) -> None:
    random = np.random.default_rng(0)
    off, on, changing = (np.column_stack([random.standard_normal((400, 2)), np.zeros(400)]) for _ in range(3))
    on[:, 2] = 1.0
    changing[200:, 2] = 1.0
    detector = make(3).fit([torch.from_numpy(off), torch.from_numpy(on)])
    shares = detector.contributions(torch.from_numpy(changing))[:, 2]
    assert float(shares.max()) <= 3.0, "one for each of its mean, spread and step"


@pytest.mark.parametrize("detector", ["residual", "combined"])
@pytest.mark.slow
def test_commands_that_go_on_for_good_silence_no_alarm(detector: str) -> None:
    """Out of fold, such a command changes where the rows of the fit show no change."""
    readings = telemetry(2000, 2)
    readings[:, 1:6] = np.arange(2000)[:, None] > np.arange(150, 650, 100)
    readings[1500:1560, 0] += np.where(np.arange(60) % 2 == 0, 5.0, -5.0)
    p_values = fit_sensor("series", detector, COLUMNS, [readings[:700]]).score(readings[700:]).p_values
    assert (p_values[830:860] <= 0.05).all()
