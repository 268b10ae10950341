"""Mahalanobis: how far the nearest class is, in units of the classes' own spread."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from models.linalg import first_occurrences, shrunk_covariance
from models.text.detectors.base import Calibrated
from models.text.detectors.cross_fit import out_of_fold

# A class with fewer items than this has no covariance of its own worth adding to.
_LEAST_FOR_COVARIANCE = 2


class MahalanobisDetector(Calibrated):
    """Distance to the nearest class mean, measured in the spread that the classes share.

    `fit` takes embeddings [m, d] and, where there are classes, labels int64 [m]; without labels all items are one
    class. The covariance of what is left after the class means is shrunk towards a multiple of the identity (Ledoit
    and Wolf, 2004), so that fewer items than dimensions will do; the score is the square root of the smallest
    squared distance (Lee et al., 2018). Calibrated out of fold: a tenth of the items is scored by what the others
    gave.
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
        """Means and shared covariance of normal items [m, d], m ≥ 4. Without `calibrated`, `calibrate` has to
        follow.
        """
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
    """Class means [classes, d], and the matrix W [d, d] with W Wᵀ the inverse of the shrunk shared covariance."""
    classes, place = torch.unique(owner, return_inverse=True)
    sums = torch.zeros(len(classes), items.shape[1], dtype=items.dtype).index_add_(0, place, items)
    counts = torch.bincount(place, minlength=len(classes))
    means = sums / counts[:, None]
    told = counts[place] >= _LEAST_FOR_COVARIANCE
    residuals = (items - means[place])[told] if bool(told.any()) else items - items.mean(dim=0)
    values, vectors = torch.linalg.eigh(shrunk_covariance(residuals))
    return means, vectors / values.clamp(min=1e-12).sqrt()


def _mahalanobis(x: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    return torch.cdist(x @ whitening, means @ whitening).min(dim=-1).values
