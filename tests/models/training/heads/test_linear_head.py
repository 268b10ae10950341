"""Fitting heads: the right strength, honest folds, and the same bytes every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from models.training.heads.linear_head import (
    Examples,
    Ints,
    count_fits,
    fit_head,
    fit_plain,
    out_of_fold_probabilities,
    stratified,
)
from models.training.metrics import calibration_error

RANDOM = np.random.default_rng(6)
CENTRES = RANDOM.normal(size=(5, 12))
LABELS = ("a", "b", "c", "d", "e")


def drawn(count: int, *, classes: int = 5, noise: float = 0.8) -> Examples:
    y = np.arange(count) % classes
    x = CENTRES[y] + noise * RANDOM.normal(size=(count, 12))
    return Examples.of((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y)


def test_a_head_is_scikit_learns_up_to_its_temperature() -> None:
    examples = drawn(200)
    head = fit_plain(examples, 10.0, LABELS)
    expected = LogisticRegression(C=10.0, tol=1e-4, max_iter=500).fit(examples.x, examples.y).predict_proba(examples.x)
    np.testing.assert_allclose(head.probabilities(torch.from_numpy(examples.x)).numpy(), expected, atol=1e-4)


def test_two_classes_become_two_rows_with_the_same_probabilities() -> None:
    examples = drawn(100, classes=2)
    head = fit_plain(examples, 10.0, ("a", "b"))
    expected = LogisticRegression(C=10.0, tol=1e-4, max_iter=500).fit(examples.x, examples.y).predict_proba(examples.x)
    np.testing.assert_allclose(head.probabilities(torch.from_numpy(examples.x)).numpy(), expected, atol=1e-4)


@pytest.mark.slow
def test_the_same_examples_give_the_same_bytes() -> None:
    examples = drawn(200)
    one, two = (fit_head(examples, LABELS, seed=3) for _ in range(2))
    assert torch.equal(one.head.weight, two.head.weight)
    assert torch.equal(one.head.bias, two.head.bias)
    assert one.head.confidence == two.head.confidence
    assert np.array_equal(one.logits, two.logits)


@pytest.mark.slow
def test_the_temperature_makes_probabilities_honest_on_new_rows() -> None:
    fit = fit_head(drawn(600), LABELS)
    new = drawn(3000)
    probabilities = fit.head.probabilities(torch.from_numpy(new.x)).numpy()
    assert calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == new.y) < 0.04


def test_noisy_rows_want_stronger_regularisation_than_clean_ones() -> None:
    noisy = fit_head(drawn(150, noise=3.0), LABELS)
    assert noisy.strength < 100.0
    assert noisy.by_strength[noisy.strength] == max(noisy.by_strength.values())


def test_a_row_alone_in_its_class_is_not_counted_as_covered() -> None:
    examples = drawn(60, classes=4)
    y = examples.y.copy()
    y[0] = 4
    fit = fit_head(Examples.of(examples.x, y), LABELS)
    assert not fit.covered[0]
    assert fit.covered[1:].all()
    assert bool(torch.isfinite(fit.head.weight).all())


def test_label_names_teach_in_every_fold_and_are_never_scored() -> None:
    examples = drawn(60, classes=4)
    y = examples.y.copy()
    y[0] = 4
    fit = fit_head(Examples.of(examples.x, y, CENTRES.astype(np.float32), np.arange(5)), LABELS)
    assert fit.covered.all()
    assert fit.logits.shape == (60, 5)


def test_a_view_never_teaches_the_fold_of_its_own_row() -> None:
    x, y = RANDOM.normal(size=(100, 200)).astype(np.float32), RANDOM.integers(0, 5, 100)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    fit = fit_head(Examples.with_views(x, y, np.concatenate([x, x])), LABELS, strengths=(100.0,))
    assert fit.logits.shape == (100, 5)
    assert np.mean(fit.logits.argmax(axis=1) == y) < 0.4, "labels drawn at random cannot be learnt from other rows"


def test_folds_spread_each_class_evenly() -> None:
    y: Ints = np.repeat(np.arange(7), 10)
    folds = stratified(y, 5, seed=1)
    assert {int(np.sum((y == label) & (folds == fold))) for label in range(7) for fold in range(5)} == {2}


def test_copies_are_in_one_fold_and_the_others_where_they_would_be_without_them() -> None:
    examples = drawn(60, classes=4)
    copied = stratified(np.tile(examples.y, 2), 5, 1, np.tile(examples.x, (2, 1)))
    assert np.array_equal(copied, np.tile(stratified(examples.y, 5, 1), 2))


@pytest.mark.parametrize("strengths", [(1.0,), (1.0, 10.0, 100.0)])
def test_progress_counts_every_fit_out_of_fold(strengths: tuple[float, ...]) -> None:
    finished: list[int] = []
    fit_head(drawn(50), LABELS, strengths=strengths, done=finished.append)
    assert sorted(finished) == list(range(1, count_fits(50, len(strengths)) + 1))


def test_probabilities_out_of_fold_are_of_every_row_and_the_same_each_time() -> None:
    examples = drawn(100)
    wrong = examples.y.copy()
    wrong[:5] = (wrong[:5] + 1) % 5
    one, two = (out_of_fold_probabilities(examples.x, wrong, seed=2) for _ in range(2))
    assert np.array_equal(one, two)
    np.testing.assert_allclose(one.sum(axis=1), np.ones(100), atol=1e-5)
    assert float(np.mean(one[:5].argmax(axis=1) == examples.y[:5])) >= 0.6, "a row has not taught its own wrong label"
