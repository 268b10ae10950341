"""What a model is worth on held-out rows: accuracy, calibration, and how well it ranks. Intervals are in `measures`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models import calibration

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def accuracy(truth: Ints, predicted: Ints) -> float:
    """The share of rows [n] predicted right."""
    _require_same(truth, predicted)
    return float(np.mean(truth == predicted))


def calibration_error(probabilities: Floats, truth: Ints, bins: int = 15) -> float:
    """Expected calibration error of probabilities [n, classes] (`models.calibration.expected_calibration_error`)."""
    labels = torch.from_numpy(np.ascontiguousarray(truth, dtype=np.int64))
    return calibration.expected_calibration_error(torch.from_numpy(np.ascontiguousarray(probabilities)), labels, bins)


def auroc(normal: Floats, strange: Floats) -> float:
    """The chance that a strange item scores higher than a normal one (scores [n] and [m]; ties count half)."""
    if not len(normal) or not len(strange):
        raise ValueError(f"expected scores of both kinds, got {len(normal)} normal and {len(strange)} strange")
    ranks = _ranks(np.concatenate([normal, strange]))
    above = ranks[len(normal) :].sum() - len(strange) * (len(strange) + 1) / 2
    return float(above / (len(normal) * len(strange)))


def recall_at_in_scope(normal: Floats, strange: Floats, pass_rate: float = 0.95) -> float:
    """The share of strange items caught by the threshold that lets `pass_rate` of the normal ones pass."""
    return float(np.mean(strange > np.quantile(normal, pass_rate)))


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation of two columns [n]; 0 when one of them is constant."""
    _require_same(a, b)
    ranks = [_ranks(column) - (len(column) + 1) / 2 for column in (a, b)]
    scale = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum() / scale) if scale else 0.0


def ndcg(grades: Sequence[Sequence[float]], scores: Sequence[Sequence[float]], k: int = 10) -> float:
    """Mean nDCG@k over queries: for each, its documents' grades (≥ 0) and the scores that rank them.

    Gain 2^grade - 1, discount log2(rank + 1) (Järvelin and Kekäläinen, 2002); equal scores keep the file's order reversed, the
    worst case, so that a constant model gains nothing. Queries without a relevant document are left out.
    """
    values = [_ndcg_of(np.asarray(g, float), np.asarray(s, float), k) for g, s in zip(grades, scores, strict=True)]
    told = [value for value in values if value is not None]
    if not told:
        raise ValueError("no query has a relevant document")
    return float(np.mean(told))


def _ndcg_of(grades: Floats, scores: Floats, k: int) -> float | None:
    if not np.any(grades > 0):
        return None
    order = np.lexsort((-np.arange(len(scores)), -scores))
    discount = 1 / np.log2(np.arange(2, min(k, len(grades)) + 2))
    gains = 2.0**grades - 1
    best = np.sort(gains)[::-1]
    return float((gains[order][: len(discount)] * discount).sum() / (best[: len(discount)] * discount).sum())


def _ranks(values: Floats) -> Floats:
    """Ranks from 1 of values [n]; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _require_same(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    """Refuse what broadcasting would compare silently."""
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"expected two columns [n] of one length, n >= 1, got {list(a.shape)} and {list(b.shape)}")
