"""Mahalanobis: the distance to the nearest class, in units of the classes' spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from models.covariance import shrunk_covariance
from models.linalg import first_occurrences
from models.text.detectors.detector import CalibratedTextDetector

# Smaller classes do not contribute to the covariance.
_MIN_FOR_COVARIANCE = 2
_LEAST_VARIANCE = 1e-12
_FOLDS = 10


class MahalanobisDetector(CalibratedTextDetector):
    """Mahalanobis distance to the nearest class mean, by the classes' shared covariance.

    `fit` takes embeddings [m, d] and labels int64 [m]; without labels all items are one class. The within-class
    covariance is shrunk towards a multiple of the identity (Ledoit and Wolf, 2004), so that fewer items than dimensions
    suffice. The score is the square root of the smallest squared distance (Lee et al., 2018). Calibration is by ten
    folds.
    """

    kind = "mahalanobis"
    least = 4
    means: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(0, 0))
        self.register_buffer("whitening", torch.empty(0, 0))

    def fit(self, x: Tensor, labels: Tensor | None = None, *, calibrated: bool = True) -> Self:
        """Fit to normal items [m, d], m ≥ 4; without `calibrated`, call `calibrate` next."""
        if x.ndim != 2 or len(x) < self.least:
            raise ValueError(f"normal items: expected shape [m, d] with m >= {self.least}, got {list(x.shape)}")
        owner = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
        if owner.shape != (len(x),):
            raise ValueError(f"labels: expected shape [{len(x)}], got {list(owner.shape)}")
        items = nn.functional.normalize(x.double(), dim=-1)
        means, whitening = _spread(items, owner)
        self.means, self.whitening = means.float().contiguous(), whitening.float().contiguous()
        if not calibrated:
            return self
        original = torch.from_numpy(first_occurrences(items.float().numpy()))
        return self.calibrate(
            out_of_fold(original, lambda train, held: _mahalanobis(items[held], *_spread(items[train], owner[train])))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of items [n, d]."""
        return _mahalanobis(nn.functional.normalize(x.float(), dim=-1), self.means, self.whitening)


def _spread(items: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Class means [classes, d], and W [d, d] with W Wᵀ the inverse of the shrunk covariance."""
    classes, index = torch.unique(owner, return_inverse=True)
    sums = torch.zeros(len(classes), items.shape[1], dtype=items.dtype).index_add_(0, index, items)
    counts = torch.bincount(index, minlength=len(classes))
    means = sums / counts[:, None]
    counted = counts[index] >= _MIN_FOR_COVARIANCE
    residuals = (items - means[index])[counted] if bool(counted.any()) else items - items.mean(dim=0)
    identity = torch.eye(items.shape[1], dtype=items.dtype, device=items.device)
    factor = torch.linalg.cholesky(shrunk_covariance(residuals) + _LEAST_VARIANCE * identity)
    return means, torch.linalg.solve_triangular(factor.mT, identity, upper=True)


def _mahalanobis(x: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    return torch.cdist(x @ whitening, means @ whitening).min(dim=-1).values


def out_of_fold(
    original: Tensor, score: Callable[[Tensor, Tensor], Tensor], *, folds: int = _FOLDS, seed: int = 0
) -> Tensor:
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
