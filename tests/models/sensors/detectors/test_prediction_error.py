"""The forecaster with a network: it foresees what no linear map can, and its ladder sees one that does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.sensors.detectors import network
from models.sensors.detectors.detector import SensorDetector
from models.sensors.detectors.prediction_error import PredictionErrorDetector
from models.sensors.detectors.residual import ResidualDetector
from models.training.metrics import auroc

pytestmark = pytest.mark.slow


def logistic(rows: int, seed: int) -> Tensor:
    """A map whose next value is a bent function of this one, and to a straight line white noise (May, 1976), with a
    little noise.
    """
    random = np.random.default_rng(seed)
    x = [0.2 + 0.6 * random.random()]
    for _ in range(rows - 1):
        x.append(3.95 * x[-1] * (1 - x[-1]))
    return torch.from_numpy(4 * np.array(x)[:, None] + 0.04 * random.standard_normal((rows, 1)))


def told_apart(detector: SensorDetector) -> float:
    """AUROC of the same readings in an order that cannot be against the order that they came in."""
    x = logistic(600, 1)
    mixed = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(2))]
    return auroc(detector.score_run(x).numpy(), detector.score_run(mixed).numpy())


@pytest.fixture(scope="module")
def foresight() -> PredictionErrorDetector:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "_MOST_EPOCHS", 30)  # of 60
        return PredictionErrorDetector(1, seed=1).fit([logistic(1000, 0)])


def test_it_foresees_what_no_linear_map_can(foresight: PredictionErrorDetector) -> None:
    assert told_apart(foresight) > 0.99
    assert told_apart(ResidualDetector(1).fit([logistic(1000, 0)])) < 0.9
    losses = foresight.curve.epochs
    assert losses[-1] < 0.5 * losses[0]


def test_a_level_that_was_never_seen_is_no_surprise(foresight: PredictionErrorDetector) -> None:
    x = logistic(200, 3)
    torch.testing.assert_close(foresight.score_run(x + 1000), foresight.score_run(x), rtol=1e-3, atol=1e-3)


def test_a_step_beyond_its_sight_counts_in_full() -> None:
    detector = PredictionErrorDetector(1)
    for weights in detector.network.parameters():
        nn.init.zeros_(weights)
    x = torch.zeros(24, 1, dtype=torch.float64)
    x[-1] = 1e6
    torch.testing.assert_close(detector.contributions(x), torch.full((1, 1), 1e12 / 8, dtype=torch.float64))


def test_equal_seeds_give_equal_weights_and_others_other_ones() -> None:
    one, two, other = (PredictionErrorDetector(2, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["network.straight.weight"], other["network.straight.weight"])
