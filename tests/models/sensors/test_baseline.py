"""The baseline that is subtracted from readings: which columns have one, how far it goes, and where a stream begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.sensors.base import Doubles
from models.sensors.baseline import Baseline
from models.sensors.fitting import fit_sensor


def wandering(rows: int, seed: int = 0) -> Doubles:
    """A column that wanders slowly, a steady one, and a switch."""
    random = np.random.default_rng(seed)
    slow = 2 * np.sin(np.arange(rows) / 1000)
    return np.column_stack([slow + 0.3 * random.standard_normal(rows), random.standard_normal(rows), slow > 0])


def centred(readings: Doubles, fitted: Baseline) -> Doubles:
    left: Doubles = fitted(torch.from_numpy(readings)).numpy()
    return left


def test_a_level_that_wanders_is_subtracted_and_a_steady_one_stays() -> None:
    x = wandering(4000)
    left = centred(x, Baseline(3).fit([torch.from_numpy(x)]))
    assert left[:, 0].std() < 0.7 * x[:, 0].std()
    assert np.abs(left[:, 1] - x[:, 1]).max() < 0.3
    np.testing.assert_array_equal(left[:, 2], x[:, 2])


def test_a_fault_that_lasts_is_not_learnt() -> None:
    x = wandering(4000)
    fitted = Baseline(3).fit([torch.from_numpy(x)])
    x[1000:, :2] += [20.0, 4.0]
    left = centred(x, fitted)
    assert np.median(left[3000:], axis=0)[0] > 14
    assert np.median(left[3000:], axis=0)[1] > 3.5


def test_a_stream_begins_where_training_ended() -> None:
    x = np.random.default_rng(0).standard_normal((1500, 2)) + np.linspace(0, 6, 1500)[:, None]
    sensor = fit_sensor("series", "ensemble", ("a", "b"), [x[:1000]])
    begun, followed = sensor.score(x[1000:]), sensor.score(x[1000:], sensor.score(x[:1000]).state)
    np.testing.assert_allclose(begun.scores[24:], followed.scores[24:], rtol=0.2, atol=0.1)


@pytest.mark.parametrize("wrong", [None, np.zeros(2), np.full(3, np.nan)])
def test_a_state_needs_its_baseline(wrong: Doubles | None) -> None:
    x = wandering(400)
    sensor = fit_sensor("series", "ensemble", ("a", "b", "c"), [x])
    state = sensor.score(x).state
    del state["baseline"]
    with pytest.raises(ValueError, match=r"state: expected .*baseline"):
        sensor.score(x, state if wrong is None else state | {"baseline": wrong})
