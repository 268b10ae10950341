"""Losses over embeddings: the rows they take, their values, and the shapes they refuse."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.training.errors import HyperparameterError
from models.training.hyperparameters import EmbeddingLoss
from models.training.tuning import losses

EVERY = [(name, kind) for kind in ("labelled", "pairs", "triplets", "scored") for name in losses.names(kind)]
COLUMNS = {"labelled": 1, "pairs": 2, "triplets": 3, "scored": 2}


def rows(seed: int, number: int = 6, width: int = 8) -> Tensor:
    return functional.normalize(torch.randn(number, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def inputs(kind: str) -> tuple[list[Tensor], Tensor | None]:
    targets = {
        "labelled": torch.tensor([0, 0, 1, 1, 2, 2]),
        "scored": torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    }.get(kind)
    return [rows(seed) for seed in range(COLUMNS[kind])], targets


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_descending_a_loss_makes_it_smaller(name: str, kind: str) -> None:
    columns, targets = inputs(kind)
    loss = losses.make(name, kind, temperature=0.2)
    free = [column.clone().requires_grad_() for column in columns]
    optimizer = torch.optim.SGD(free, lr=0.1)
    values = []
    for _ in range(60):
        value = loss([functional.normalize(column, dim=-1) for column in free], targets)
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_columns_of_unequal_shape_are_refused(name: str, kind: str) -> None:
    columns, targets = inputs(kind)
    loss = losses.make(name, kind)
    with pytest.raises(ValueError, match="columns of embeddings"):
        loss([*columns, columns[0]], targets)
    with pytest.raises(ValueError, match="columns of embeddings"):
        loss([column[:, :, None] for column in columns], targets)


@pytest.mark.parametrize(("name", "kind"), [item for item in EVERY if item[1] in ("labelled", "scored")])
def test_targets_that_would_broadcast_are_refused(name: str, kind: str) -> None:
    columns, targets = inputs(kind)
    assert targets is not None
    loss = losses.make(name, kind)
    for wrong in (targets[:, None], targets[:1], targets.double()):
        with pytest.raises(ValueError, match=r"targets: expected .* of shape \[6\]"):
            loss(columns, wrong)
    with pytest.raises(ValueError, match="expected targets, got none"):
        loss(columns, None)


def test_what_a_job_may_ask_for_is_what_some_rows_feed() -> None:
    assert {name for name, kind in EVERY if kind != "labelled"} == set(get_args(EmbeddingLoss))


def test_targets_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="expected no targets"):
        losses.make("multiple_negatives", "pairs")([rows(0), rows(1)], torch.zeros(6))


def test_a_loss_must_fit_the_rows() -> None:
    with pytest.raises(HyperparameterError, match="does not fit rows of kind 'pairs'") as error:
        losses.make("cosent", "pairs")
    assert (error.value.code, error.value.param) == ("invalid_hyperparameter", "method.supervised.hyperparameters.loss")
    with pytest.raises(HyperparameterError, match="no loss over embeddings"):
        losses.make("cosent", "plain")


def test_the_supervised_contrastive_loss_is_its_formula() -> None:
    x = functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=-1)
    got = losses.supervised_contrastive(x, torch.tensor([0, 0, 1]), temperature=0.5)
    near = 2 * math.sqrt(0.5)
    expected = -(0.0 - math.log(math.exp(0.0) + math.exp(near)))
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_the_pair_loss_weighs_both_kinds_of_pairs_the_same() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert losses.contrastive_pairs(x, torch.tensor([0, 0, 1, 1, 1])).item() == pytest.approx(0.0)
    assert losses.contrastive_pairs(torch.ones(4, 1), torch.tensor([0, 0, 1, 1])).item() == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["supervised_contrastive", "contrastive"])
def test_a_batch_without_positives_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"same label|share a label"):
        losses.make(name, "labelled")([rows(0, 2)], torch.tensor([0, 1]))


def test_a_matryoshka_loss_is_the_sum_over_prefixes_and_the_whole() -> None:
    columns, targets = inputs("scored")
    whole = losses.make("cosent", "scored", matryoshka=(4,))(columns, targets)
    plain = losses.make("cosent", "scored")
    cut = [functional.normalize(column[:, :4], dim=-1) for column in columns]
    assert whole.item() == pytest.approx(plain(columns, targets).item() + plain(cut, targets).item(), rel=1e-5)
    same = losses.make("cosent", "scored", matryoshka=(8, 4))(columns, targets)
    assert same.item() == pytest.approx(whole.item())
    with pytest.raises(ValueError, match="16 dimensions of an embedding that has 8"):
        losses.make("cosent", "scored", matryoshka=(16,))(columns, targets)
    with pytest.raises(HyperparameterError, match="different sizes"):
        losses.make("cosent", "scored", matryoshka=(4, 4))
