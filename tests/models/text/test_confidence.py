"""Probabilities are honest, and no sharper than the rows that judged them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import beta

from models.text.confidence import Confidence, ceiling_of, fit_temperature, in_scope
from models.training.metrics import calibration_error


def drawn(temperature: float, *, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a model whose confidence is off by `temperature`, and labels drawn by its honest probabilities."""
    generator = torch.Generator().manual_seed(8)
    honest = 2 * torch.randn(count, 5, generator=generator)
    labels = torch.multinomial(honest.softmax(dim=-1), 1, generator=generator).flatten()
    return honest * temperature, labels


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0, 10.0])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)


def error_of(logits: torch.Tensor, labels: torch.Tensor) -> float:
    confidence, predicted = logits.softmax(-1).max(-1)
    return calibration_error(confidence.numpy(), (predicted == labels).numpy())


def test_a_fitted_temperature_makes_probabilities_honest() -> None:
    logits, labels = drawn(4.0)
    assert error_of(logits, labels) > 0.15
    assert error_of(logits / fit_temperature(logits, labels), labels) < 0.03


@pytest.mark.parametrize("rows", [40, 96, 1000])
def test_rows_without_a_mistake_support_an_error_rate_of_about_one_in_their_number(rows: int) -> None:
    """Without a prior the temperature ends at its bound, and the runners-up at 1e-40."""
    labels = torch.arange(rows) % 4
    logits = 3 * torch.eye(4)[labels]
    sure = (logits / fit_temperature(logits, labels)).softmax(-1).max(-1).values
    assert 0.5 / rows < 1 - float(sure.mean()) < 3 / rows


@pytest.mark.parametrize(("rows", "errors"), [(40, 0), (40, 3), (770, 0), (8, 0)])
def test_no_probability_is_above_what_the_rows_allow(rows: int, errors: int) -> None:
    labels = torch.arange(rows) % 4
    logits = 3 * torch.eye(4)[labels]
    logits[:errors] = logits[:errors].roll(1, dims=1)  # as sure as the others, and wrong
    confidence = Confidence.fitted(logits, labels)
    bound = beta.ppf(0.95, errors + 1, rows - errors)
    sharpest = confidence.probabilities(1000 * torch.eye(4) / confidence.temperature)
    assert float(sharpest.max()) == pytest.approx(1 - bound, abs=0.08 if errors else 1e-6)
    torch.testing.assert_close(sharpest.sum(dim=1), torch.ones(4))
    assert sharpest.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert float(sharpest.min()) > 1e-4, "runners-up keep a chance"


def test_the_surest_rows_decide_how_sure_the_model_may_be() -> None:
    """Errors among unsure rows say nothing against the sure ones."""
    confidence = np.linspace(1, 0, 1000)
    right = np.arange(1000) < 800
    assert ceiling_of(confidence, right) == pytest.approx(0.05 ** (1 / 800))
    assert ceiling_of(confidence, right[::-1]) < 0.8
    assert ceiling_of(np.ones(3), np.zeros(3, dtype=np.bool_)) == pytest.approx(0.0)


def test_nothing_judged_leaves_probabilities_as_they_are() -> None:
    confidence = Confidence.fitted(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.equal(confidence.probabilities(logits), logits.softmax(-1))


def test_the_chance_of_being_in_scope_falls_with_the_distance_from_normal_scores() -> None:
    normal = torch.randn(500, generator=torch.Generator().manual_seed(3)) * 0.1 + 0.4
    chances = in_scope(normal, torch.tensor([0.0, 0.4, 0.7, 1.5]))
    assert float(chances[1]) > 0.99
    assert float(chances[2]) == pytest.approx(0.5, abs=0.15)
    assert float(chances[3]) < 1e-6
    assert bool((chances.diff() <= 0).all())
    assert float(in_scope(normal, normal).mean()) > 0.98, "texts that belong lose next to nothing"


def test_normal_scores_without_spread_leave_equal_scores_in_scope() -> None:
    assert in_scope(torch.full((20,), 0.5), torch.tensor([0.5, 0.6])).tolist() == [pytest.approx(0.9975, abs=1e-3), 0.0]


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[3, 2\] and \[2\]"):
        fit_temperature(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))


def test_a_single_label_in_scope_has_all_the_probability() -> None:
    assert Confidence().probabilities(torch.tensor([[-3.0], [0.0]])).tolist() == [[1.0], [1.0]]
