"""Linear algebra on the CPU: unit length, shortening, duplicates and covariance."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vectors = NDArray[np.float32]
# Rows with this cosine are the same text: in bfloat16 a text's vectors of two batches have 0.9999.
SAME_VECTOR_COSINE = 0.9999
_ROWS_AT_ONCE = 1024


def normalize(vectors: Vectors) -> Vectors:
    """Scale rows float32 [n, d] to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, np.float32(1e-12))
    return scaled


def first_occurrences(vectors: Vectors) -> NDArray[np.int64]:
    """The index int64 [n] of the first equal row, for each row float32 [n, d] of length 1."""
    first = np.arange(len(vectors))
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        same = vectors[start : start + _ROWS_AT_ONCE] @ vectors.T > SAME_VECTOR_COSINE
        copies = np.flatnonzero(same.any(axis=1))
        first[start + copies] = same[copies].argmax(axis=1)
    return first


def shorten(vectors: Vectors, dimensions: int | None) -> Vectors:
    """Keep the first `dimensions` of each row (Matryoshka); lengths are no longer 1."""
    return vectors if dimensions is None else vectors[:, :dimensions]


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
