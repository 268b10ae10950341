"""Metrics against scikit-learn and by hand; intervals that hold what they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, ndcg_score, roc_auc_score

from models.training.metrics import (
    accuracy,
    auroc,
    calibration_error,
    calibration_interval,
    class_f1,
    gain_in,
    macro_f1,
    macro_f1_gain,
    mean_gain,
    miscalibration,
    ndcg,
    recall_at_in_scope,
    share_of,
    spearman,
)

RANDOM = np.random.default_rng(4)
TRUTH = RANDOM.integers(0, 6, 300)
PREDICTED = np.where(RANDOM.random(300) < 0.7, TRUTH, RANDOM.integers(0, 6, 300))


def test_macro_f1_and_auroc_are_scikit_learns() -> None:
    assert macro_f1(TRUTH, PREDICTED, 6) == pytest.approx(f1_score(TRUTH, PREDICTED, average="macro"))
    np.testing.assert_allclose(class_f1(TRUTH, PREDICTED, 6), f1_score(TRUTH, PREDICTED, average=None))
    normal, strange = RANDOM.normal(size=80).round(1), (RANDOM.normal(size=50) + 1).round(1)
    expected = roc_auc_score([0] * 80 + [1] * 50, np.concatenate([normal, strange]))
    assert auroc(normal, strange) == pytest.approx(expected)


def test_a_class_that_occurs_nowhere_does_not_lower_macro_f1() -> None:
    assert macro_f1(np.array([0, 2]), np.array([0, 2]), 3) == 1.0
    assert np.isnan(class_f1(np.array([0, 2]), np.array([0, 2]), 3)[1])


def test_accuracy_and_calibration_by_hand() -> None:
    assert accuracy(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])) == 0.75
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, False])) == pytest.approx(0.5)
    # bin of 0.9: half right, gap 0.4, weight 1/2; bin of 0.6: both right, gap 0.4, weight 1/2
    confidence, right = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True])
    assert calibration_error(confidence, right, bins=5) == pytest.approx(0.4)


def test_spearman_by_hand_with_a_tie_and_0_for_a_constant() -> None:
    # ranks 1, 2, 3, 4 against 1, 2.5, 2.5, 4
    assert spearman(np.array([1.0, 5.0, 7.0, 9.0]), np.array([0.1, 0.3, 0.3, 0.9])) == pytest.approx(
        4.5 / np.sqrt(5 * 4.5)
    )
    assert spearman(np.arange(4.0), -(np.arange(4.0) ** 3)) == pytest.approx(-1.0)
    assert spearman(np.arange(40.0), np.ones(40)) == 0.0


def test_ndcg_is_scikit_learns_where_no_scores_tie() -> None:
    grades, scores = RANDOM.integers(0, 2, (5, 30)), RANDOM.normal(size=(5, 30))
    assert ndcg(grades.tolist(), scores.tolist()) == pytest.approx(ndcg_score(2.0**grades - 1, scores, k=10))


def test_a_constant_ranking_gains_nothing_from_the_files_order() -> None:
    assert ndcg([[1.0, *[0.0] * 19]], [[0.5] * 20]) == 0.0


def test_queries_without_a_relevant_document_are_left_out() -> None:
    assert ndcg([[0.0, 0.0], [1.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]]) == 1.0
    with pytest.raises(ValueError, match="no query"):
        ndcg([[0.0]], [[1.0]])


def test_recall_counts_what_the_threshold_of_the_normal_items_catches() -> None:
    assert recall_at_in_scope(np.arange(101.0), np.array([90.0, 94.0, 96.0, 99.0])) == 0.5


def test_miscalibration_is_counted_beyond_the_chance_of_independent_rows() -> None:
    kept, broken = np.linspace(0.001, 1, 1000), np.linspace(0.001, 0.5, 1000)
    assert miscalibration(kept) == 0
    assert 0.03 < miscalibration(broken) < 0.05
    assert miscalibration(broken, 50) == 0, "20 independent rows cannot tell"


RIGHT = (PREDICTED == TRUTH).astype(float)


def test_an_interval_holds_the_estimate_and_narrows_with_rows() -> None:
    few, many = (mean_gain(np.tile(RIGHT, n)[: 100 * n], None, seed=0) for n in (1, 20))
    assert few.low < few.value < few.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_pairing_sees_a_difference_that_two_intervals_would_miss() -> None:
    better = RIGHT.copy()
    better[np.flatnonzero(better == 0)[:12]] = 1
    gain = mean_gain(better, RIGHT, seed=0)
    assert gain.value == pytest.approx(12 / 300)
    assert gain.low > 0
    assert mean_gain(better, None, seed=0).low < mean_gain(RIGHT, None, seed=0).high


def test_the_same_predictions_are_no_win() -> None:
    same = macro_f1_gain(TRUTH, PREDICTED, PREDICTED, 6, seed=0)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_a_lead_is_measured_in_the_metric_that_is_asked_for() -> None:
    """Right on many rows of the large classes, wrong on all of the small one: a lead in accuracy, none in macro-F1."""
    truth = np.repeat([0, 1, 2], [60, 60, 4])
    ours, theirs = np.where(truth == 2, 0, truth), np.where(np.arange(124) % 9 == 0, (truth + 1) % 2, truth)
    accuracy_, f1 = (gain_in(name, truth, ours, theirs, 3, seed=0, level=0.8) for name in ("accuracy", "macro_f1"))
    assert accuracy_.value == pytest.approx(accuracy(truth, ours) - accuracy(truth, theirs))
    assert accuracy_.low > 0 > f1.high
    assert f1 == macro_f1_gain(truth, ours, theirs, 3, seed=0, level=0.8)
    wide = gain_in("accuracy", truth, ours, theirs, 3, seed=0, level=0.99)
    assert wide.low < accuracy_.low < accuracy_.high < wide.high


def test_a_change_that_helps_as_often_as_it_hurts_is_no_win() -> None:
    old, new = np.ones(200), np.ones(200)
    old[:20], new[20:40] = 0, 0
    gain = mean_gain(new, old, seed=0)
    assert gain.low < 0 == gain.value < gain.high


def test_intervals_are_the_same_on_every_run() -> None:
    assert macro_f1_gain(TRUTH, PREDICTED, None, 6, seed=3) == macro_f1_gain(TRUTH, PREDICTED, None, 6, seed=3)


def test_all_rows_right_leave_a_doubt_that_more_rows_lessen() -> None:
    few, more = (macro_f1_gain(np.arange(n) % 3, np.arange(n) % 3, None, 3, seed=0) for n in (12, 300))
    assert few.value == few.high == more.high == 1.0
    assert 0.7 < few.low < 0.9 < more.low < 1.0


def test_columns_of_different_length_are_refused_rather_than_broadcast() -> None:
    with pytest.raises(ValueError, match=r"got \[3\] and \[1\]"):
        accuracy(np.zeros(3, int), np.zeros(1, int))
    with pytest.raises(ValueError, match=r"got \[3\] and \[3, 2\]"):
        calibration_error(np.zeros(3), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="both kinds"):
        auroc(np.zeros(3), np.zeros(0))


@pytest.mark.parametrize(
    "measure",
    [
        lambda none: accuracy(none, none),
        lambda none: calibration_error(none, none.astype(bool)),
        lambda none: calibration_interval(none, none.astype(bool), seed=0),
        lambda none: class_f1(none, none, 3),
        lambda none: macro_f1(none, none, 3),
        lambda none: macro_f1_gain(none, none, None, 3, seed=0),
        lambda none: mean_gain(none, None, seed=0),
        lambda none: miscalibration(none),
        lambda none: recall_at_in_scope(none, np.ones(2)),
        lambda none: recall_at_in_scope(np.ones(2), none),
        lambda none: share_of(len(none), len(none)),
        lambda none: spearman(none, none),
    ],
)
def test_no_rows_are_refused_rather_than_measured(measure: Callable[[NDArray[np.int64]], object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        measure(np.zeros(0, np.int64))


@pytest.mark.parametrize(("rows", "wide"), [(8, True), (4000, False)])
def test_the_interval_of_a_calibration_error_is_as_wide_as_chance(rows: int, *, wide: bool) -> None:
    confidence = np.full(rows, 0.8)
    found = calibration_interval(confidence, np.arange(rows) < 0.5 * rows, seed=0)
    assert found.value == pytest.approx(0.3)
    assert found.low <= found.value <= found.high
    assert (found.low < 0.1) is wide
