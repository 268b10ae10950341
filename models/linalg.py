"""Linear algebra in NumPy: unit length, ranks, shortening, quantization and duplicates."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Quantization = Literal["int8", "uint8", "binary", "ubinary"]
Integers = NDArray[np.int8] | NDArray[np.uint8]
_LARGEST_INT8 = 127
# Rows with this cosine are the same text: in bfloat16 a text's vectors of two batches have 0.9999.
SAME_VECTOR_COSINE = 0.9999
_ROWS_AT_ONCE = 1024


def normalize(vectors: Vectors) -> Vectors:
    """Scale rows float32 [n, d] to length 1; a zero row stays zero."""
    # What np.linalg.norm does after its checks, which take longer than one row.
    lengths = np.sqrt(np.add.reduce(vectors * vectors, axis=-1, keepdims=True))
    scaled: Vectors = np.divide(vectors, np.maximum(lengths, np.float32(1e-12)))
    return scaled


def ranks_of(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks [n] of values [n] from 1; equal values share the mean of theirs. NaN beside one that is NaN."""
    # As scipy.stats.rankdata, whose module takes half a second to import.
    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


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


def quantize(vectors: Vectors, kind: Quantization) -> tuple[Integers, float]:
    """Rows [n, d] as integers, and the mean of 1 - cosine between the rows before and after.

    int8 scales each row by its largest number, so rows compare by cosine; uint8 is int8 + 128. ubinary has a bit a
    dimension, set where the number is positive, in bytes [n, ⌈d / 8⌉]; binary is ubinary - 128.
    """
    coarse = _round_to_int8(vectors) if kind in {"int8", "uint8"} else _signs(vectors)
    loss = 1.0 - float((normalize(vectors) * normalize(coarse)).sum(axis=1).mean())
    return _pack(coarse, kind), loss


def _round_to_int8(vectors: Vectors) -> Vectors:
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    rounded: Vectors = np.rint(vectors / largest * np.float32(_LARGEST_INT8))
    return rounded


def _signs(vectors: Vectors) -> Vectors:
    return np.where(vectors > 0, np.float32(1), np.float32(-1))


def _pack(coarse: Vectors, kind: Quantization) -> Integers:
    match kind:
        case "int8":
            return coarse.astype(np.int8)
        case "uint8":
            return (coarse + 128).astype(np.uint8)
        case "ubinary":
            return np.packbits(coarse > 0, axis=1)
        case "binary":
            return (np.packbits(coarse > 0, axis=1) ^ 128).view(np.int8)
