"""Arithmetic on rows of vectors that needs no device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def normalize(vectors: Vectors) -> Vectors:
    """Scale rows float32 [n, d] to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, np.float32(1e-12))
    return scaled


def shorten(vectors: Vectors, dimensions: int | None) -> Vectors:
    """Keep the first `dimensions` of each row, as Matryoshka models mean it; the rows are then no longer of length 1."""
    return vectors if dimensions is None else vectors[:, :dimensions]
