"""Arithmetic on rows of vectors that needs no device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
# Cosine from which on two rows are one text: bfloat16 gives a text in another batch 0.9999.
SAME = 0.9999
_ROWS_AT_ONCE = 1024


def normalize(vectors: Vectors) -> Vectors:
    """Scale rows float32 [n, d] to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, np.float32(1e-12))
    return scaled


def originals(vectors: Vectors) -> NDArray[np.int64]:
    """For each row float32 [n, d] of length 1 the number of the first row that is the same, int64 [n]: its own where it is no copy."""
    first = np.arange(len(vectors))
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        same = vectors[start : start + _ROWS_AT_ONCE] @ vectors.T > SAME
        copies = np.flatnonzero(same.any(axis=1))
        first[start + copies] = same[copies].argmax(axis=1)
    return first


def shorten(vectors: Vectors, dimensions: int | None) -> Vectors:
    """Keep the first `dimensions` of each row, as Matryoshka models mean it; the rows are then no longer of length 1."""
    return vectors if dimensions is None else vectors[:, :dimensions]
