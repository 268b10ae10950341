"""Scores of items that had no part in what scored them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_FOLDS = 10

Fold = Callable[[Tensor, Tensor], Tensor]


def out_of_fold(count: int, score: Fold, *, folds: int = _FOLDS, seed: int = 0) -> Tensor:
    """Scores [count] of items, each by what was fitted to the others: `score(train, held)` takes two index tensors."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    scores = torch.empty(count)
    for held in order.chunk(min(folds, count)):
        rest = torch.ones(count, dtype=torch.bool)
        rest[held] = False
        scores[held] = score(rest.nonzero().flatten(), held).float()
    return scores
