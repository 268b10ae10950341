"""Out-of-fold scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_FOLDS = 10

FoldScore = Callable[[Tensor, Tensor], Tensor]


def out_of_fold(original: Tensor, score: FoldScore, *, folds: int = _FOLDS, seed: int = 0) -> Tensor:
    """Out-of-fold scores [n] of items, by `score(train, held)` of two index tensors.

    `original` int64 [n] is the index of the item that each is a copy of. Copies share a fold, so that none is scored
    by another one; where all items are copies of one, they are treated as different.
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
