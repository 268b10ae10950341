"""Detectors: what is strange scores high, and normal items are flagged as often as alpha says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from models.covariance import shrunk_covariance
from models.errors import ModelSourceError
from models.text.detectors.combined import CombinedDetector
from models.text.detectors.energy import EnergyDetector
from models.text.detectors.knn import KnnDetector, ReferenceDetector
from models.text.detectors.mahalanobis import MahalanobisDetector, out_of_fold
from models.text.detectors.serialization import TextDetector, load_detector, save_detector
from models.text.heads import LinearHead

GENERATOR = torch.Generator().manual_seed(5)
CENTRE = torch.nn.functional.normalize(torch.randn(16, generator=GENERATOR), dim=0)
NORMAL = CENTRE + 0.1 * torch.randn(200, 16, generator=GENERATOR)


def test_what_is_like_the_reference_scores_low_and_the_opposite_high() -> None:
    scored = ReferenceDetector().fit(NORMAL).score(torch.stack([CENTRE, -CENTRE]))
    assert scored.scores[0] < 0.2 < 1.5 < scored.scores[1]
    assert scored.p_values[0] > 0.2
    assert scored.p_values[1] == pytest.approx(1 / 201)


def test_new_normal_items_are_flagged_about_as_often_as_alpha() -> None:
    new = CENTRE + 0.1 * torch.randn(2000, 16, generator=GENERATOR)
    flagged = (ReferenceDetector().fit(NORMAL).score(new).p_values <= 0.05).double().mean()
    assert 0.02 < flagged < 0.09


def test_the_nearest_items_are_named_nearest_first() -> None:
    detector = ReferenceDetector().fit(torch.eye(4))
    scored = detector.score(torch.tensor([[0.1, 0.9, 0.5, 0.0]]), explain=2)
    assert scored.nearest.tolist() == [[1, 2]]
    assert scored.similarities[0, 0] > scored.similarities[0, 1]


def test_a_reference_item_is_scored_against_the_others_alone() -> None:
    detector = ReferenceDetector(neighbours=1).fit(torch.eye(3))
    assert detector.calibration.tolist() == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize("seed", range(20))
def test_equal_and_opposite_items_are_0_and_2_apart_and_no_more(seed: int) -> None:
    item = torch.randn(1, 384, generator=torch.Generator().manual_seed(seed))
    detector = KnnDetector().fit(item.repeat(20, 1))
    scored = detector.score(torch.cat([item, -item]))
    assert float(detector.calibration.min()) >= 0
    assert float(scored.scores.min()) >= 0
    assert float(scored.scores.max()) <= 2
    assert float(scored.similarities.abs().max()) <= 1


def test_lengths_do_not_matter() -> None:
    detector = ReferenceDetector().fit(NORMAL)
    torch.testing.assert_close(detector(NORMAL[:5]), ReferenceDetector().fit(NORMAL * 7)(NORMAL[:5] * 3))


def test_two_items_are_the_least() -> None:
    assert len(ReferenceDetector().fit(torch.eye(2)).calibration) == 2
    with pytest.raises(ValueError, match=r"m >= 2, got \[1, 2\]"):
        ReferenceDetector().fit(torch.eye(2)[:1])


def test_the_state_is_in_the_module() -> None:
    fitted = ReferenceDetector().fit(NORMAL)
    assert set(fitted.state_dict()) == {"reference", "calibration"}


CENTRES = torch.nn.functional.normalize(torch.randn(3, 16, generator=GENERATOR), dim=1)


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal items of three classes, wider in some directions than in others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    spread = torch.linspace(0.02, 0.3, 16)
    return CENTRES[labels] + spread * torch.randn(count, 16, generator=generator), labels


def fitted(kind: str) -> TextDetector:
    x, labels = drawn(1500, 1)
    if kind == "energy":
        head = LinearHead(CENTRES * 5, torch.zeros(3), ("a", "b", "c"))
        return EnergyDetector(head).fit(x)
    if kind == "combined":
        head = LinearHead(CENTRES * 5, torch.zeros(3), ("a", "b", "c"))
        return CombinedDetector(KnnDetector(5).fit(x), EnergyDetector(head).fit(x)).fit()
    return KnnDetector(5).fit(x) if kind == "knn" else MahalanobisDetector().fit(x, labels)


KINDS = ["knn", "mahalanobis", "energy", "combined"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_unseen_normal_items_are_flagged_about_as_often_as_alpha(kind: str, alpha: float) -> None:
    new, _ = drawn(6000, 2)
    detector = fitted(kind)
    threshold = detector.threshold(alpha)
    assert threshold is not None
    flagged = float((detector(new) > threshold).double().mean())
    assert 0.7 * alpha < flagged < 1.3 * alpha
    assert flagged == float((detector.score(new).p_values <= alpha).double().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_score_higher_than_normal_items(kind: str) -> None:
    detector = fitted(kind)
    strange = detector(-CENTRES.sum(dim=0, keepdim=True))
    assert float(strange[0]) > float(detector(drawn(50, 4)[0]).median())


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_detector_comes_back_the_same(kind: str, tmp_path: Path) -> None:
    detector, x = fitted(kind), drawn(20, 3)[0]
    save_detector(detector, tmp_path)
    back = load_detector(tmp_path)
    assert type(back) is type(detector)
    assert torch.equal(back(x), detector(x))
    assert torch.equal(back.calibration, detector.calibration)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["detector.json", "detector.safetensors"]
    assert json.loads((tmp_path / "detector.json").read_text())["kind"] == kind


def test_a_step_counts_for_less_where_normal_items_are_spread_wide() -> None:
    x = torch.nn.functional.normalize(
        torch.randn(2000, 8, generator=GENERATOR) * 0.2 * torch.tensor([0.05] * 4 + [1.0] * 4) + 1, dim=1
    )
    detector = MahalanobisDetector().fit(x)
    steps = 0.1 * torch.eye(8)[[0, 7]]
    scores = detector(x.mean(dim=0, keepdim=True) + steps)
    assert scores[0] > 3 * scores[1]


def test_the_score_is_the_distance_by_the_shrunk_covariance() -> None:
    generator = torch.Generator().manual_seed(5)
    mixed = torch.randn(60, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    x = torch.nn.functional.normalize(mixed, dim=1).double()
    away = x - x.mean(dim=0)
    expected = (away @ torch.linalg.inv(shrunk_covariance(away)) * away).sum(dim=1).sqrt()
    assert torch.allclose(MahalanobisDetector().fit(x)(x).double(), expected, rtol=1e-3)


def test_with_classes_what_lies_between_them_is_strange() -> None:
    generator = torch.Generator().manual_seed(9)
    labels = torch.arange(400) % 2
    x = torch.tensor([[1.0, 0.2], [1.0, -0.2]])[labels] + 0.02 * torch.randn(400, 2, generator=generator)
    preempt = torch.tensor([[1.0, 0.0]])
    assert MahalanobisDetector().fit(x, labels).score(preempt).p_values[0] < 0.01


def test_the_shrunk_covariance_is_that_of_scikit_learn() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 12)) * np.linspace(1, 3, 12)
    rows -= rows.mean(axis=0)
    expected, _ = ledoit_wolf(rows, assume_centered=True)
    np.testing.assert_allclose(shrunk_covariance(torch.from_numpy(rows)).numpy(), expected, rtol=1e-9)


def test_fewer_items_than_dimensions_will_do() -> None:
    detector = MahalanobisDetector().fit(torch.nn.functional.normalize(torch.randn(10, 64, generator=GENERATOR), dim=1))
    assert bool(torch.isfinite(detector.calibration).all())
    assert len(detector.calibration) == 10


def test_equal_items_give_finite_scores() -> None:
    detector = MahalanobisDetector().fit(torch.ones(8, 4))
    assert bool(torch.isfinite(detector(torch.eye(4))).all())


def test_an_item_is_never_scored_by_what_was_fitted_to_it() -> None:
    seen: list[int] = []

    def score(train: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        assert not set(train.tolist()) & set(held.tolist())
        assert len(train) + len(held) == 23
        seen.extend(held.tolist())
        return held.float()

    assert out_of_fold(torch.arange(23), score, folds=5).tolist() == list(range(23))
    assert sorted(seen) == list(range(23))


def test_nor_by_what_was_fitted_to_a_copy_of_it() -> None:
    original = torch.tensor([0, 1, 0, 3, 1, 5, 6, 0, 8, 6])

    def score(train: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        assert not set(original[train].tolist()) & set(original[held].tolist())
        assert len(train) + len(held) == 10
        return held.float()

    assert out_of_fold(original, score, folds=3).tolist() == list(range(10))


@pytest.mark.parametrize("kind", ["knn", "mahalanobis"])
def test_copies_among_the_normal_items_do_not_break_the_promise(kind: str) -> None:
    x, unseen = torch.randn(100, 64, generator=GENERATOR), torch.randn(2000, 64, generator=GENERATOR)
    detector = (KnnDetector() if kind == "knn" else MahalanobisDetector()).fit(x.repeat(2, 1))
    assert float((detector.score(unseen).p_values <= 0.05).double().mean()) < 0.1


def test_a_large_reference_is_scored_in_parts_as_at_once() -> None:
    x = torch.randn(2100, 8, generator=GENERATOR)
    detector = KnnDetector(2).fit(x)
    unit = torch.nn.functional.normalize(x, dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    torch.testing.assert_close(detector.calibration, 1 - similarity.topk(2).values.mean(dim=1))
    assert len(detector.score(x).nearest) == 2100


def test_detectors_refuse_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"labels: expected shape \[10\]"):
        MahalanobisDetector().fit(torch.randn(10, 3), torch.zeros(9, dtype=torch.int64))
    with pytest.raises(ValueError, match="m >= 4"):
        MahalanobisDetector().fit(torch.randn(3, 3))
    detector = EnergyDetector(LinearHead(torch.eye(2), torch.zeros(2), ("a", "b")))
    with pytest.raises(ValueError, match=r"\[n, classes\]"):
        detector.fit_logits(torch.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        KnnDetector().calibrate(torch.tensor([torch.nan]))


@pytest.mark.parametrize("change", [{"kind": "forest"}, {"kind": "energy"}, {"neighbours": "many"}])
def test_a_detector_that_was_tampered_with_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    save_detector(KnnDetector().fit(NORMAL), tmp_path)
    settings = json.loads((tmp_path / "detector.json").read_text())
    (tmp_path / "detector.json").write_text(json.dumps(settings | change))
    with pytest.raises(ModelSourceError, match="not a detector"):
        load_detector(tmp_path)


def test_a_directory_without_a_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="not a detector"):
        load_detector(tmp_path)


def test_detectors_calibrated_by_different_items_are_not_combined() -> None:
    head = LinearHead(CENTRES, torch.zeros(3), ("a", "b", "c"))
    with pytest.raises(ValueError, match="got 200 and 20 scores"):
        CombinedDetector(KnnDetector().fit(NORMAL), EnergyDetector(head).fit(NORMAL[:20])).fit()
