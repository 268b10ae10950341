"""Detectors of single records: the distance of a row from normal rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from models.covariance import shrunk_covariance
from models.sensors.detectors.detector import SensorDetector, pieces, require_runs

_KEPT_VARIANCE = 0.9
_LIMIT = 0.99
_REFERENCE = 1024
_NEIGHBOURS = 5
_ROWS_AT_ONCE = 4096
_SMALLEST = 1e-9


class _WhitenedRecords(SensorDetector):
    """The length of whitened rows (x - mean) · root, whose squared coordinates are the columns' contributions."""

    mean: Tensor
    root: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__(columns)
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("root", torch.eye(columns, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of rows [n, d]."""
        scores: Tensor = torch.linalg.vector_norm(self._whitened(x), dim=1)
        return scores

    def contributions(self, x: Tensor) -> Tensor:
        """Squared coordinates of whitened rows, [n, d]."""
        return self._whitened(x).square()

    def _whitened(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.root


class PcaDetector(_WhitenedRecords):
    """Hotelling's T² within the main directions, and the squared error (SPE, Q) beside them.

    score² = T² / its limit + SPE / its limit, with the 99 % quantiles of the normal rows as limits (Yue and Qin:
    Reconstruction-Based Fault Identification Using a Combined Index, 2001). As a quadratic form xᵀMx it is |M½ x|²:
    its squared coordinates are the columns' contributions and sum to score².
    """

    kind = "pca"
    components: Tensor
    variances: Tensor
    limits: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__(columns)
        self.register_buffer("components", torch.zeros(columns, 0, dtype=torch.float64))
        self.register_buffer("variances", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("limits", torch.ones(2, dtype=torch.float64))

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Find the directions that hold 90 % of the variance, but never all directions."""
        x = torch.cat(list(runs))
        require_runs([x], 4)
        self.mean = x.mean(dim=0)
        values, vectors = torch.linalg.eigh(shrunk_covariance(x - self.mean))
        values, vectors = values.flip(0), vectors.flip(1)
        share = values.cumsum(0) / values.sum().clamp(min=_SMALLEST)
        kept = min(int((share < _KEPT_VARIANCE).sum()) + 1, max(self.columns - 1, 1))
        self.components = vectors[:, :kept].contiguous()
        self.variances = values[:kept].clamp(min=_SMALLEST)
        self.limits = torch.stack([part.quantile(_LIMIT).clamp(min=_SMALLEST) for part in (self.t2(x), self.spe(x))])
        self.root = self.root_of_limits()
        return self

    def t2(self, x: Tensor) -> Tensor:
        """Hotelling's T² of rows [n, d]: [n]."""
        return (((x - self.mean) @ self.components).square() / self.variances).sum(dim=1)

    def spe(self, x: Tensor) -> Tensor:
        """The squared distance of rows [n, d] from the plane of the main directions: [n]."""
        centred = x - self.mean
        return (centred - centred @ self.components @ self.components.T).square().sum(dim=1)

    def root_of_limits(self) -> Tensor:
        """M½ of M = P Λ⁻¹ Pᵀ / t + (I - P Pᵀ) / s, with P and its complement as eigenvectors."""
        inside = self.components * (self.variances * self.limits[0]).rsqrt() @ self.components.T
        identity = torch.eye(self.columns, dtype=torch.float64, device=self.components.device)
        beside = identity - self.components @ self.components.T
        # With one column there is no direction beside the plane.
        return inside + beside * self.limits[1].rsqrt() if self.columns > 1 else inside


class MahalanobisRecords(_WhitenedRecords):
    """Mahalanobis distance by a shrunk covariance (Ledoit and Wolf, 2004); the symmetric root keeps columns."""

    kind = "mahalanobis"

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Measure the mean and the square root of the inverse covariance."""
        x = torch.cat(list(runs))
        require_runs([x], 4)
        self.mean = x.mean(dim=0)
        self.root = inverse_root(shrunk_covariance(x - self.mean))
        return self


class KnnRecords(SensorDetector):
    """Mean distance to the 5 nearest of 1,024 normal rows, spread evenly over the file.

    The distance of Angiulli and Pizzuti: Fast Outlier Detection in High Dimensional Spaces, 2002.

    A column's contribution is its squared difference from the mean of those 5.
    """

    kind = "knn"
    reference: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__(columns)
        self.register_buffer("reference", torch.zeros(0, columns, dtype=torch.float64))

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Keep reference rows."""
        x = torch.cat(list(runs))
        require_runs([x], _NEIGHBOURS + 1)
        chosen = torch.linspace(0, len(x) - 1, min(len(x), _REFERENCE), dtype=torch.float64).round().long()
        self.reference = x[chosen].contiguous()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of rows [n, d]."""
        return torch.cat([self._nearest(part)[0] for part in pieces(x, _ROWS_AT_ONCE)]) if len(x) else x.new_zeros(0)

    def contributions(self, x: Tensor) -> Tensor:
        """Squared differences from the mean of the nearest rows, [n, d]."""
        middles = [self.reference[self._nearest(part)[1]].mean(dim=1) for part in pieces(x, _ROWS_AT_ONCE)]
        return (x - torch.cat(middles)).square() if middles else torch.zeros_like(x)

    def _nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean distances float64 [n] to the nearest rows, and their indices [n, 5]."""
        distances = torch.cdist(x.float(), self.reference.float())
        found = distances.topk(_NEIGHBOURS, dim=1, largest=False, sorted=True).indices
        return (x[:, None, :] - self.reference[found]).square().sum(dim=2).sqrt().mean(dim=1), found


def inverse_root(covariance: Tensor) -> Tensor:
    """The symmetric root of a covariance's inverse [d, d], without null directions."""
    values, vectors = torch.linalg.eigh(covariance)
    least = (values.max() * 1e-8).clamp(min=_SMALLEST)
    rates = torch.where(values > least, values.maximum(least).rsqrt(), torch.zeros_like(values))
    root: Tensor = vectors * rates @ vectors.T
    return root
