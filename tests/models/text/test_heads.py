"""Linear heads: shapes, probabilities, and files without pickle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.errors import ModelSourceError
from models.text.confidence import Confidence
from models.text.heads import LinearHead

GENERATOR = torch.Generator().manual_seed(2)
WEIGHT, BIAS = torch.randn(3, 5, generator=GENERATOR), torch.randn(3, generator=GENERATOR)
LABELS = ("lost", "späte Karte", "<odd>")


def made() -> LinearHead:
    return LinearHead(WEIGHT, BIAS, LABELS, Confidence(0.5, 0.9))


def test_logits_are_divided_by_the_temperature() -> None:
    x = torch.randn(4, 5, generator=GENERATOR)
    torch.testing.assert_close(made()(x), (x @ WEIGHT.T + BIAS) * 2)
    torch.testing.assert_close(made().probabilities(x).sum(dim=1), torch.ones(4))


def test_a_saved_head_comes_back_the_same(tmp_path: Path) -> None:
    made().save(tmp_path)
    back = LinearHead.load(tmp_path)
    assert back.labels == LABELS
    assert back.confidence == Confidence(0.5, 0.9)
    x = torch.randn(7, 5, generator=GENERATOR)
    assert torch.equal(back(x), made()(x))
    assert torch.equal(back.probabilities(x), made().probabilities(x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]


def test_a_head_of_version_0_1_0_has_no_ceiling(tmp_path: Path) -> None:
    made().save(tmp_path)
    settings = json.loads((tmp_path / "head.json").read_text())
    del settings["ceiling"]
    (tmp_path / "head.json").write_text(json.dumps(settings))
    assert LinearHead.load(tmp_path).confidence == Confidence(0.5, 1.0)


def test_equal_heads_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made().save(tmp_path / name)
    for file in ("head.json", "head.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("weight", "bias", "count"),
    [(WEIGHT[0], BIAS, 3), (WEIGHT, BIAS[:2], 3), (WEIGHT, BIAS, 2), (WEIGHT[:1], BIAS[:1], 1)],
)
def test_shapes_that_do_not_fit_are_refused(weight: torch.Tensor, bias: torch.Tensor, count: int) -> None:
    with pytest.raises(ValueError, match=r"expected weight \[labels, d\]"):
        LinearHead(weight, bias, LABELS[:count])


def test_an_embedding_of_another_width_is_refused_rather_than_broadcast() -> None:
    with pytest.raises(ValueError, match=r"expected embeddings \[n, 5\], got \[2, 4\]"):
        made()(torch.zeros(2, 4))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_a_positive_number(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        LinearHead(WEIGHT, BIAS, LABELS, Confidence(temperature))


@pytest.mark.parametrize(
    "change", [{"kind": "pickle"}, {"labels": ["a"]}, {"temperature": "hot"}, {"labels": None}, {"ceiling": 2}]
)
def test_a_head_that_was_tampered_with_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    made().save(tmp_path)
    settings = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps(settings | change))
    with pytest.raises(ModelSourceError, match="not a classifier head"):
        LinearHead.load(tmp_path)


def test_a_head_with_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    LinearHead(torch.full((3, 5), torch.nan), BIAS, LABELS).save(tmp_path)
    with pytest.raises(ModelSourceError, match="not finite"):
        LinearHead.load(tmp_path)


def test_a_directory_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="not a classifier head"):
        LinearHead.load(tmp_path)
