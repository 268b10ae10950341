"""Conformal p-values keep their promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from models.p_values import conformal_p_values, conformal_threshold, smallest_p_value

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
@pytest.mark.slow
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
