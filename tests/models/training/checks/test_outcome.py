"""The outcome checks tell better from not better, and pass a healthy result."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.training.checks.outcome import (
    check_calibration,
    check_coverage,
    check_frozen,
    check_gain,
    check_outcome,
    check_rank,
)
from models.training.metrics import Interval, calibration_error, effective_rank, encoded, macro_f1, macro_f1_gain
from models.training.report import Finding
from tests.support.check_rows import troubles

RNG = np.random.default_rng(0)
NAMES = ["a", "b", "c", "d"]
TRUTH = [NAMES[number] for number in RNG.integers(0, 4, 400)]
EMBEDDINGS = RNG.normal(size=(400, 16)).astype(np.float32)


def guesses(right: float, seed: int = 1) -> list[str]:
    """Predictions of which about this share is right."""
    rng = np.random.default_rng(seed)
    return [label if rng.random() < right else NAMES[(NAMES.index(label) + 1) % 4] for label in TRUTH]


def judged(predicted: list[str], **more: object) -> dict[str, Finding]:
    return troubles(check_outcome(TRUTH, predicted, resamples=300, **more))  # type: ignore[arg-type]


def test_a_healthy_result_raises_nothing() -> None:
    confidence = np.full(400, 0.9)
    found = judged(guesses(0.9), confidence=confidence, trivial=guesses(0.5, 3), embeddings=EMBEDDINGS)
    assert found == {}


@pytest.mark.parametrize(("low", "status"), [(0.002, "ok"), (-0.004, "warn")])
def test_a_lead_over_the_frozen_encoder_is_beyond_chance_or_warns(low: float, status: str) -> None:
    found = check_frozen(Interval(0.02, low, 0.05), 770)
    assert (found.check, found.status) == ("against_frozen", status)
    assert "770 rows" in found.message
    assert ("better beyond chance" in found.message) == (status == "ok")


def test_a_result_worse_than_the_trivial_one_fails() -> None:
    assert judged(guesses(0.4), trivial=guesses(0.8, 3))["against_trivial"].status == "fail"
    assert judged(guesses(0.8), trivial=guesses(0.8, 3))["against_trivial"].status == "warn"


@pytest.mark.parametrize(("rows", "is_told"), [(2, False), (9, False), (10, True)])
def test_of_few_rows_no_lead_is_told_and_no_share(rows: int, is_told: bool) -> None:
    truth, wrong = ["a", "b"] * (rows // 2 + 1), ["b", "a"] * (rows // 2 + 1)
    truth, wrong = truth[:rows], wrong[:rows]
    sure = np.ones(rows)
    found = {
        one.check: one for one in check_outcome(truth, truth, confidence=sure, scores=sure, trivial=wrong, resamples=50)
    }
    assert found["against_trivial"].status == ("ok" if is_told else "skipped")
    assert ("better beyond chance" in found["against_trivial"].message) is is_told
    assert ("too few independent rows for an interval" in found["macro_f1"].message) is not is_told
    assert (f"{rows} of {rows} held-out rows, too few to say more" in found["calibration"].message) is not is_told
    lost = {one.check: one for one in check_outcome(truth, wrong, trivial=truth, resamples=50)}
    assert lost["against_trivial"].status == ("fail" if is_told else "warn")


def test_probabilities_that_are_too_sure_are_found() -> None:
    found = judged(guesses(0.7), confidence=np.full(400, 0.95))["calibration"]
    assert found.status == "warn"
    assert "too sure" in found.remedy
    assert "not sure enough" in judged(guesses(0.9), confidence=np.full(400, 0.6))["calibration"].remedy


def test_the_report_shows_coverage_against_accuracy() -> None:
    scores = np.repeat([0.95, 0.55], 200)
    found = check_coverage(scores, np.arange(400) < 300)
    assert "0 answers all, 75.0% of them right" in found.message
    assert "0.5 answers 100.0%, 75.0% of them right; 0.6 answers 50.0%, 100.0% of them right" in found.message
    assert "0.9 answers 50.0%" in found.message
    few = check_coverage(np.array([0.95, 0.7, 0.5, 0.5]), np.ones(4, dtype=np.bool_)).message
    assert "0 answers all, 4 of 4 of them right; 0.5 answers 4 of 4, 4 of 4 of them right" in few
    assert few.endswith("0.9 answers 1 of 4, 1 of 1 of them right.")
    assert "coverage" in {finding.check for finding in check_outcome(TRUTH, TRUTH, scores=np.ones(400), resamples=50)}


def test_a_small_held_out_part_is_not_blamed_for_chance() -> None:
    confidence = np.random.default_rng(3).uniform(0.5, 1.0, 40)
    quiet = sum(
        check_calibration(confidence, np.random.default_rng(seed).random(40) < confidence).status == "ok"
        for seed in range(40)
    )
    assert quiet >= 34


def test_the_worst_class_is_named_with_what_it_is_taken_for_and_its_rows() -> None:
    predicted = ["c" if label == "b" else label for label in TRUTH]
    found = troubles(check_outcome(TRUTH, predicted, lines=[index + 100 for index in range(400)], resamples=50))[
        "worst_classes"
    ]
    assert found.status == "warn"
    assert "'b' 0.00 (taken for 'c')" in found.message
    assert found.rows[0] == TRUTH.index("b") + 100


def test_collapsed_embeddings_are_found() -> None:
    same = np.ones((50, 16)) + 1e-3 * RNG.normal(size=(50, 16))
    assert troubles(check_rank(same))["effective_rank"].status == "warn"
    narrow = EMBEDDINGS[:, :4] @ RNG.normal(size=(4, 16))
    found = troubles(check_rank(narrow, EMBEDDINGS))
    assert set(found) == {"rank_kept"}


def test_any_measure_a_row_can_be_compared() -> None:
    ours, theirs = RNG.uniform(0.4, 1.0, 200), RNG.uniform(0.0, 0.6, 200)
    assert check_gain("ndcg", ours, theirs, measure="nDCG", remedy="Keep the old.").status == "ok"
    assert check_gain("ndcg", theirs, ours, measure="nDCG", remedy="Keep the old.").status == "warn"
    assert check_gain("ndcg", ours, None, measure="nDCG", remedy="").status == "ok"
    with pytest.raises(ValueError, match=r"expected shape \[n\]"):
        check_gain("ndcg", np.zeros((2, 2)), None, measure="nDCG", remedy="")


# The measures themselves


def test_macro_f1_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    predicted = guesses(0.6)
    labels, (truth, ours) = encoded(TRUTH, predicted)
    assert macro_f1(truth, ours, len(labels)) == pytest.approx(f1_score(TRUTH, predicted, average="macro"))


def test_calibration_error_by_hand() -> None:
    confidence: NDArray[np.float64] = np.array([0.95, 0.95, 0.55, 0.55])
    assert calibration_error(confidence, np.array([True, True, True, False])) == pytest.approx((0.1 + 0.1) / 4)


def test_effective_rank_counts_directions() -> None:
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(np.ones((5, 3))) == pytest.approx(1)
    assert effective_rank(np.zeros((5, 3))) == 0


def test_an_interval_holds_its_value_and_narrows_with_more_rows() -> None:
    labels, (truth, ours) = encoded(TRUTH, guesses(0.8))
    wide = macro_f1_gain(truth[:50], ours[:50], None, len(labels), seed=0, resamples=300)
    slim = macro_f1_gain(truth, ours, None, len(labels), seed=0, resamples=300)
    assert slim.low < slim.value < slim.high
    assert slim.high - slim.low < wide.high - wide.low
