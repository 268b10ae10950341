"""Outcome check against baselines: ok only if better beyond chance, a warning only if worse beyond chance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from models.training.checks.comparison import Predictions, _lead, auroc, check_incumbent, check_trivial, f1, limits
from models.training.report import Finding

pytestmark = pytest.mark.slow

ROWS = np.random.default_rng(0).random(4000)
ANOMALOUS = np.arange(2000) % 20 == 0
NO_ROW = np.zeros(2000, np.bool_)
GOOD = Predictions(ROWS[:2000] + ANOMALOUS, ANOMALOUS | (ROWS[:2000] > 0.97))
NOISE = Predictions(ROWS[2000:], ROWS[2000:] > 0.95)


def statuses(findings: list[Finding]) -> dict[str, str]:
    assert all(finding.stage == "outcome" and bool(finding.remedy) == (finding.status != "ok") for finding in findings)
    return {finding.check: finding.status for finding in findings}


def trivial(ours: Predictions, theirs: Predictions, stride: int = 1) -> dict[str, str]:
    return statuses(list(check_trivial(ours, theirs, ANOMALOUS, stride, seed=0)))


def incumbent(
    ours: Predictions, theirs: Predictions, anomalous: np.ndarray[tuple[int], np.dtype[np.bool_]], stride: int = 1
) -> dict[str, str]:
    return statuses(list(check_incumbent(ours, theirs, anomalous, stride, seed=0)))


def test_only_a_detector_that_beats_the_largest_z_score_is_fine() -> None:
    assert trivial(GOOD, NOISE) == {"against_trivial": "ok", "f1_against_trivial": "ok"}
    assert trivial(NOISE, GOOD) == {"against_trivial": "warn", "f1_against_trivial": "warn"}
    assert trivial(GOOD, GOOD) == {"against_trivial": "warn", "f1_against_trivial": "warn"}


def test_alarms_can_be_worse_where_scores_are_better() -> None:
    silent = Predictions(GOOD.scores, NO_ROW)
    assert trivial(silent, NOISE) == {"against_trivial": "ok", "f1_against_trivial": "warn"}


def test_the_message_has_both_figures_and_the_interval() -> None:
    _, finding = check_trivial(GOOD, NOISE, ANOMALOUS, 1, seed=0)
    ours, theirs = (f1_score(ANOMALOUS, predictions.alarms) for predictions in (GOOD, NOISE))
    assert finding.value == pytest.approx(ours - theirs)
    assert f"F1 at alpha 0.05 is {ours:.3f}, that of the largest robust z-score {theirs:.3f}" in finding.message
    assert "better beyond chance" in finding.message


def test_f1_and_auroc_by_hand() -> None:
    anomalous = np.array([True, True, False, False])
    predictions = Predictions(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, False, True, False]))
    assert (f1(predictions, anomalous), auroc(predictions, anomalous)) == (0.5, 0.75)
    assert f1(Predictions(predictions.scores, np.zeros(4, np.bool_)), anomalous) == 0


def test_neighbours_widen_the_interval() -> None:
    turn = np.repeat(np.random.default_rng(1).random(20) < 0.5, 100)
    ours, theirs = (Predictions(NOISE.scores, ANOMALOUS & whose) for whose in (turn, ~turn))
    by_row, by_run = (_lead(f1, ours, theirs, ANOMALOUS, stride, 0) for stride in (1, 100))
    assert by_run.value == by_row.value
    assert by_run.high - by_run.low > 1.5 * (by_row.high - by_row.low)


def test_the_served_model_causes_a_warning_only_where_it_is_better() -> None:
    assert incumbent(GOOD, NOISE, ANOMALOUS) == {"against_incumbent": "ok", "f1_against_incumbent": "ok"}
    assert incumbent(GOOD, GOOD, ANOMALOUS) == {"against_incumbent": "ok", "f1_against_incumbent": "ok"}
    assert incumbent(NOISE, GOOD, ANOMALOUS) == {"against_incumbent": "warn", "f1_against_incumbent": "warn"}


def test_without_labels_the_one_nearer_to_alpha_is_better() -> None:
    loud = Predictions(ROWS[:2000], ROWS[:2000] > 0.8)
    quiet = Predictions(ROWS[:2000], NO_ROW)
    assert incumbent(NOISE, loud, NO_ROW) == {"against_incumbent": "ok"}
    assert incumbent(loud, NOISE, NO_ROW) == {"against_incumbent": "warn"}
    assert incumbent(quiet, NOISE, NO_ROW) == {"against_incumbent": "warn"}
    [finding] = check_incumbent(NOISE, loud, NO_ROW, 1, seed=0)
    assert "that of the served model 20." in finding.message


def test_limits_flag_a_twentieth_of_the_normal_rows_and_what_is_far_out() -> None:
    normal = np.random.default_rng(2).standard_normal((2000, 3)) * [1, 10, 100]
    assert limits(normal, normal).alarms.mean() == pytest.approx(0.05, abs=0.001)
    far = limits(np.array([[0.0, 0, 0], [0, 90, 0]]), normal)
    assert far.alarms.tolist() == [False, True]
    constant = limits(np.array([[5.0]]), np.zeros((10, 1)))
    assert (constant.scores.tolist(), constant.alarms.tolist()) == ([0.0], [False]), "a constant column has no unit"
