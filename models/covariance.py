"""The covariance of rows."""

from __future__ import annotations

import torch
from torch import Tensor


def shrunk_covariance(residuals: Tensor) -> Tensor:
    """Covariance float64 [d, d] of centred rows [n, d], shrunk towards the identity.

    The shrinkage has the least expected squared error (Ledoit and Wolf: A well-conditioned estimator for
    large-dimensional covariance matrices, 2004).
    """
    n, d = residuals.shape
    covariance = residuals.T @ residuals / n
    level = covariance.trace() / d
    target = level * torch.eye(d, dtype=covariance.dtype, device=covariance.device)
    distance = ((covariance - target) ** 2).sum() / d
    # The variance of the rows' outer products, without computing these: the mean of |x|^4, less |S|^2.
    noise = ((residuals.square().sum(dim=1) ** 2).sum() / n - covariance.square().sum()) / (n * d)
    share = torch.where(distance > 0, noise.clamp(min=0.0) / distance, torch.ones_like(distance)).clamp(max=1.0)
    return (1 - share) * covariance + share * target
