"""The statistics of the last readings, and the ensemble: which faults they see, and what counts less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.sensors.detectors.combined import EnsembleSeries
from models.sensors.detectors.moving_moments import moving_moments
from models.sensors.detectors.residual import ResidualDetector
from models.sensors.detectors.window_statistics import StatisticsDetector

Doubles = NDArray[np.float64]


def noise(rows: int, columns: int = 3, seed: int = 0) -> Doubles:
    return np.random.default_rng(seed).standard_normal((rows, columns))


def fitted(x: Doubles) -> StatisticsDetector:
    return StatisticsDetector(x.shape[1]).fit([torch.from_numpy(x)])


@pytest.mark.parametrize("fault", ["shifted", "noisy", "smooth", "stuck"])
def test_it_sees_a_column_that_moves_shakes_smooths_or_freezes(fault: str) -> None:
    detector, live = fitted(noise(1000)), noise(400, seed=1)
    usual = detector.score_run(torch.from_numpy(live))
    calm = np.convolve(live[:, 1], np.ones(8) / 8, mode="same") * np.sqrt(8)
    live[:, 1] = {"shifted": live[:, 1] + 2, "noisy": 3 * live[:, 1], "smooth": calm, "stuck": np.zeros(400)}[fault]
    found = detector.score_run(torch.from_numpy(live))
    assert found.quantile(0.1) > usual.quantile(0.9)
    assert detector.contributions(torch.from_numpy(live)).mean(dim=0).argmax() == 1


def test_a_level_that_wanders_counts_less() -> None:
    steady = noise(1000)
    wandering = steady.copy()
    wandering[:, 0] += 0.2 * np.random.default_rng(2).standard_normal(1000).cumsum()
    moved = {}
    for name, x in (("steady", steady), ("wandering", wandering)):
        live = noise(400, seed=1)
        live[:, 0] += 3 * x[:, 0].std()
        moved[name] = float(fitted(x).contributions(torch.from_numpy(live)).mean(dim=0)[0])
    assert moved["wandering"] < 0.1 * moved["steady"]


def test_a_constant_column_leaves_the_others_as_they_are() -> None:
    x, live = noise(600), noise(100, seed=1)
    with_constant = fitted(np.column_stack([x, np.zeros(600)]))
    shares = with_constant.contributions(torch.from_numpy(np.column_stack([live, np.zeros(100)])))
    assert torch.isfinite(shares).all()
    assert shares[:, 3].max() < 1e-20


def test_few_rows_are_not_learnt_by_heart() -> None:
    x, later = torch.from_numpy(noise(350, 8)), torch.from_numpy(noise(350, 8, seed=1))
    detector = ResidualDetector(8).fit([x])
    seen, unseen = (float(detector.contributions(part).mean()) for part in (x, later))
    assert unseen < 1.8 * seen


def test_a_fault_that_one_member_sees_is_seen() -> None:
    detector = EnsembleSeries(3).fit([torch.from_numpy(noise(1000))])
    live = noise(400, seed=1)
    usual = detector.score_run(torch.from_numpy(live))
    live[:, 1] = 0.0  # neither `level` nor `residual` sees a stuck column
    assert detector.score_run(torch.from_numpy(live)).median() > usual.quantile(0.95)
    assert len(np.unique(usual.numpy())) == len(usual), "scores that share a lowest value would end in p-values of 1"


def test_a_column_that_is_stuck_for_six_readings_is_seen_by_short_windows_alone() -> None:
    x, usual = torch.from_numpy(noise(2000)), torch.from_numpy(noise(2000, seed=1))
    starts = range(100, 2000, 100)
    stuck = usual.clone()
    for start in starts:
        stuck[start : start + 6, 1] = 0.0
    found = {}
    for windows in ((16,), (16, 8, 4)):
        detector = EnsembleSeries(3, windows).fit([x])
        limit, scores = detector.score_run(usual).quantile(0.99), detector.score_run(stuck)
        first = detector.window - 1  # the reading of the first score
        found[windows] = sum(bool(scores[start - first : start - first + 6].max() > limit) for start in starts)
    assert found[(16,)] <= 2
    assert found[16, 8, 4] == len(starts)


@pytest.mark.parametrize("window", [1, 2, 3, 15, 16, 20])
@pytest.mark.parametrize("level", [0.0, 1e6])
def test_moments_of_windows_keep_their_digits_at_any_level(window: int, level: float) -> None:
    x = torch.from_numpy(noise(60)) + level
    moments = moving_moments(x, window)
    windows = x.unfold(0, window, 1)
    torch.testing.assert_close(moments.means, windows.mean(dim=2), rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(
        moments.variances, windows.var(dim=2, unbiased=False), rtol=0, atol=1e-15 + level * 1e-15
    )


def test_moments_depend_on_the_readings_of_the_window_alone() -> None:
    x = torch.from_numpy(noise(60))
    whole, part = moving_moments(x, 16), moving_moments(x[7:40], 16)
    assert whole.means[7:25].equal(part.means)
    assert whole.variances[7:25].equal(part.variances)


def test_a_window_of_one_reading_is_refused() -> None:
    with pytest.raises(ValueError, match="window: expected at least 2 readings, got 1"):
        StatisticsDetector(3, window=1)
