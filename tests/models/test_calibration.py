"""Conformal p-values keep their promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from models.calibration import (
    conformal_p_values,
    conformal_threshold,
    expected_calibration_error,
    fit_temperature,
    smallest_p_value,
)

SCORES = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40)


@pytest.mark.parametrize(("score", "p"), [(0.5, 1.0), (1.0, 1.0), (1.5, 4 / 5), (4.0, 2 / 5), (4.5, 1 / 5)])
def test_by_hand(score: float, p: float) -> None:
    assert conformal_p_values(tensor([1.0, 2.0, 3.0, 4.0]), tensor([score])).tolist() == pytest.approx([p])


def test_normal_data_is_called_strange_no_more_often_than_alpha() -> None:
    generator = torch.Generator().manual_seed(3)
    alpha, alarms = 0.1, []
    for _ in range(400):
        scores = torch.randn(60, generator=generator)
        alarms.append((conformal_p_values(scores[:50], scores[50:]) <= alpha).double().mean())
    assert 0.07 < float(torch.stack(alarms).mean()) <= alpha + 0.01


@given(SCORES, SCORES, st.floats(0.005, 0.995))
def test_the_threshold_says_the_same_as_the_p_value(
    calibration: list[float], scores: list[float], alpha: float
) -> None:
    known, new = tensor(calibration), tensor(scores)
    threshold = conformal_threshold(known, alpha)
    flagged = torch.zeros(len(new), dtype=torch.bool) if threshold is None else new > threshold
    assert torch.equal(flagged, conformal_p_values(known, new) <= alpha)


def test_too_few_scores_can_never_be_below_alpha() -> None:
    assert conformal_threshold(torch.arange(18.0), 0.05) is None
    assert conformal_threshold(torch.arange(19.0), 0.05) == 18.0
    assert smallest_p_value(19) == pytest.approx(0.05)


def test_matrices_are_refused_rather_than_broadcast() -> None:
    with pytest.raises(ValueError, match=r"scores: expected shape \[n\], got \[2, 1\]"):
        conformal_p_values(torch.zeros(3), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="calibration"):
        conformal_threshold(torch.zeros(3, 1), 0.1)


def drawn(temperature: float, *, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a model that is too sure of itself by `temperature`, and labels drawn as its honest probabilities
    say.
    """
    generator = torch.Generator().manual_seed(8)
    honest = 2 * torch.randn(count, 5, generator=generator)
    labels = torch.multinomial(honest.softmax(dim=-1), 1, generator=generator).flatten()
    return honest * temperature, labels


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0, 10.0])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)


def test_a_fitted_temperature_makes_probabilities_honest() -> None:
    logits, labels = drawn(4.0)
    before = expected_calibration_error(logits.softmax(-1), labels)
    after = expected_calibration_error((logits / fit_temperature(logits, labels)).softmax(-1), labels)
    assert before > 0.15
    assert after < 0.03


def test_data_without_a_mistake_gives_a_temperature_within_bounds() -> None:
    assert 0.019 < fit_temperature(torch.eye(4) * 3, torch.arange(4)) < 0.03


def test_the_calibration_error_by_hand() -> None:
    rows = tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    # bin of 0.9: half right, gap 0.4, weight 1/2; bin of 0.6: both right, gap 0.4, weight 1/2
    assert expected_calibration_error(rows, tensor([0, 1, 0, 1]), bins=5) == pytest.approx(0.4)


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[3, 2\] and \[2\]"):
        fit_temperature(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
