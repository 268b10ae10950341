"""Covariance of fewer rows than dimensions."""

from __future__ import annotations

import torch
from torch import Tensor


def shrunk_covariance(residuals: Tensor) -> Tensor:
    """Covariance float64 [d, d] of centred rows [n, d], shrunk towards a multiple of the identity.

    Ledoit and Wolf: A well-conditioned estimator for large-dimensional covariance matrices, 2004; the amount of shrinkage is
    the one of least expected squared error.
    """
    n, d = residuals.shape
    covariance = residuals.T @ residuals / n
    level = covariance.trace() / d
    target = level * torch.eye(d, dtype=covariance.dtype, device=covariance.device)
    away = ((covariance - target) ** 2).sum() / d
    # The spread of the single rows' outer products around their mean, without making them: |x|^4 summed, less |S|^2.
    noise = ((residuals.square().sum(dim=1) ** 2).sum() / n - covariance.square().sum()) / (n * d)
    share = torch.where(away > 0, noise.clamp(min=0.0) / away, torch.ones_like(away)).clamp(max=1.0)
    return (1 - share) * covariance + share * target
