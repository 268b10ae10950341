"""Scores of items that had no part in what scored them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_FOLDS = 10

FoldScore = Callable[[Tensor, Tensor], Tensor]


def out_of_fold(original: Tensor, score: FoldScore, *, folds: int = _FOLDS, seed: int = 0) -> Tensor:
    """Scores [n] of items, each by what was fitted to the others: `score(train, held)` takes two index tensors.

    `original` int64 [n] names the item that each is a copy of; copies are in one fold, or a copy would be scored by
    its like. Where all are copies of one, there is nothing else to score them by.
    """
    known = torch.unique(original)
    if len(known) == 1:
        original = known = torch.arange(len(original))
    order = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))]
    scores = torch.empty(len(original))
    for part in order.chunk(min(folds, len(known))):
        held = torch.isin(original, part)
        scores[held] = score((~held).nonzero().flatten(), held.nonzero().flatten()).float()
    return scores
