"""Zero-shot heads: the nearest label wins, and probabilities follow the temperature."""

from __future__ import annotations

import pytest
import torch

from models.text.confidence import Confidence
from models.text.zero_shot import MULTI_LABEL_BIAS, ZeroShotHead


def test_probabilities_sum_to_one_and_the_nearest_label_wins() -> None:
    head = ZeroShotHead.from_texts(torch.eye(3), [0, 1, 2])
    scores = head(torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 3.0]]))
    assert scores.argmax(dim=1).tolist() == [0, 2]
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))


def test_a_prototype_is_the_mean_direction_of_its_texts() -> None:
    head = ZeroShotHead.from_texts(torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, 1.0]]), [0, 0, 1])
    torch.testing.assert_close(head.prototypes, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]]))


def test_a_lower_temperature_is_surer() -> None:
    vector = torch.tensor([[1.0, 0.8]])
    sure = ZeroShotHead(torch.eye(2), Confidence(0.01))(vector)[0, 0]
    unsure = ZeroShotHead(torch.eye(2), Confidence(1.0))(vector)[0, 0]
    assert unsure < 0.6 < sure


def test_several_labels_may_fit_and_none_need() -> None:
    head = ZeroShotHead(torch.eye(3))
    both = head(torch.tensor([[1.0, 1.0, -1.0]]), multi_label=True)[0]
    assert both[0] > 0.5
    assert both[1] > 0.5
    assert both[2] < 0.01
    edge = torch.tensor([[MULTI_LABEL_BIAS, (1 - MULTI_LABEL_BIAS**2) ** 0.5, 0.0]])
    assert float(head(edge, multi_label=True)[0, 0]) == pytest.approx(0.5, abs=1e-5)


def test_owners_and_vectors_must_match() -> None:
    with pytest.raises(ValueError, match=r"got \[2, 2\] and 1"):
        ZeroShotHead.from_texts(torch.eye(2), [0])


def test_a_few_examples_support_no_certainty() -> None:
    random = torch.Generator().manual_seed(1)
    owners = [row // 10 for row in range(40)]
    texts = 5 * torch.eye(4, 16)[owners] + torch.randn(40, 16, generator=random)
    sure = ZeroShotHead.from_texts(texts, owners)
    judged = ZeroShotHead.from_texts(texts, owners, torch.ones(40, dtype=torch.bool))
    assert torch.equal(sure.prototypes, judged.prototypes)
    # None of 40 was taken for another label's, so the error rate may be 7 %.
    assert float(sure(texts).max()) > 0.99999
    assert judged.confidence.ceiling == pytest.approx(0.05 ** (1 / 40))
    for multi_label in (False, True):
        assert float(judged(texts, multi_label=multi_label).max()) <= judged.confidence.ceiling + 1e-6


def test_a_text_does_not_judge_the_prototype_that_it_is_part_of() -> None:
    texts, owners = torch.eye(8), [0, 0, 0, 0, 1, 1, 1, 1]
    judged = ZeroShotHead.from_texts(texts, owners, torch.ones(8, dtype=torch.bool))
    assert judged.confidence.ceiling < 0.5, "without itself no text is near its label"
