"""Choosing detectors by out-of-scope texts or hidden classes, and calibrating on unseen items."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.training.heads import detector_selection, linear_head
from models.training.heads.detector_selection import (
    MAX_REFERENCE,
    NormalEmbeddings,
    best_kind,
    false_alarms,
    fit_detector,
    neighbours_for,
)
from models.training.heads.linear_head import Floats, Ints
from models.training.hyperparameters import DetectorKind

RANDOM = np.random.default_rng(12)
CENTRES = RANDOM.normal(size=(10, 16))
KINDS: tuple[DetectorKind, ...] = detector_selection.SIMPLEST_FIRST


def drawn(count: int) -> tuple[Floats, Ints]:
    y = np.arange(count) % 10
    x = CENTRES[y] + 0.5 * RANDOM.normal(size=(count, 16))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


@pytest.fixture(scope="module")
def normal() -> NormalEmbeddings:
    x, y = drawn(1000)
    fit = linear_head.fit_head(linear_head.Examples.of(x, y), tuple("abcdefghij"), strengths=(10.0,))
    return NormalEmbeddings(x, y, fit.head, fit.logits)


@pytest.mark.parametrize("kind", KINDS)
def test_the_false_alarm_rate_on_unseen_items_is_about_alpha(normal: NormalEmbeddings, kind: DetectorKind) -> None:
    """Those with a head err towards fewer alarms: out of fold it has seen fewer rows."""
    rates = false_alarms(fit_detector(kind, normal, 5), drawn(8000)[0])
    assert (0.035 if kind in ("knn", "mahalanobis") else 0.025) < rates["false_alarm_rate_0.05"] < 0.065


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_on_the_unseen_takes_the_place_of_its_own(normal: NormalEmbeddings, kind: DetectorKind) -> None:
    detector = detector_selection.calibrate_on(fit_detector(kind, normal, 5, calibrated=False), drawn(700)[0])
    assert len(detector.calibration) == 700
    assert 0.025 < false_alarms(detector, drawn(8000)[0])["false_alarm_rate_0.05"] < 0.08


def test_hidden_classes_rank_all_kinds_but_the_energy_alone(normal: NormalEmbeddings) -> None:
    held_x, held_y = drawn(400)
    ranking = detector_selection.rank_by_hidden_classes(normal, held_x, held_y, 10.0, 5, seed=1)
    assert set(ranking) == {"knn", "mahalanobis", "combined"}
    assert all(0.8 < score <= 1 for score in ranking.values())


def test_too_few_classes_to_hide_give_no_ranking() -> None:
    x, y = drawn(100)
    assert detector_selection.rank_by_hidden_classes(NormalEmbeddings(x, y % 3), x, y % 3, 10.0, 5, seed=0) == {}
    assert detector_selection.rank_by_hidden_classes(NormalEmbeddings(x), x, y, 10.0, 5, seed=0) == {}


def test_the_simpler_of_equals_is_taken() -> None:
    assert best_kind({}) == "knn"
    assert best_kind({"knn": 0.9, "combined": 0.901}) == "knn"
    assert best_kind({"knn": 0.9, "mahalanobis": 0.7, "energy": 0.95, "combined": 0.96}) == "combined"


def test_energy_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a head"):
        fit_detector("combined", NormalEmbeddings(drawn(20)[0]), 3)


def test_neighbours_follow_the_size_of_a_class() -> None:
    x, y = drawn(100)
    assert neighbours_for(NormalEmbeddings(x, y), "auto") == 3
    assert neighbours_for(NormalEmbeddings(x), "auto") == 5
    assert neighbours_for(NormalEmbeddings(x[:4], y[:4]), "auto") == 1
    assert neighbours_for(NormalEmbeddings(x, y), 7) == 7


def test_a_large_reference_is_sampled_row_by_row() -> None:
    count = MAX_REFERENCE + 50
    x = np.repeat(np.arange(count, dtype=np.float32)[:, None], 2, axis=1)
    part = detector_selection.sample(NormalEmbeddings(x, np.arange(count)), seed=2)
    assert part.y is not None
    assert len(part.x) == MAX_REFERENCE
    assert np.array_equal(part.x[:, 0], part.y)


def test_an_alpha_that_the_calibration_cannot_resolve_is_not_told(normal: NormalEmbeddings) -> None:
    few = NormalEmbeddings(normal.x[:30])
    assert set(false_alarms(fit_detector("knn", few, 3), normal.x)) == {"false_alarm_rate_0.05"}
    assert false_alarms(fit_detector("knn", few, 3), torch.empty(0, 16).numpy()) == {}
