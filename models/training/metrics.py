"""Metrics of a result: accuracy, F1, calibration, ranking, effective rank, and bootstrap intervals around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models import calibration
from models.calibration import confidence_gap
from models.training.hyperparameters import Metric

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

    Gain 2^grade - 1, discount log2(rank + 1) (Järvelin and Kekäläinen, 2002); equal scores keep the file's order
    reversed, the worst case, so that a constant model gains nothing. Queries without a relevant document are left
    out.
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


_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its bootstrap percentile interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    @property
    def verdict(self) -> str:
        """What it says of a lead, in words."""
        return (
            "better beyond chance"
            if self.low > 0
            else "worse beyond chance"
            if self.high < 0
            else "no difference beyond chance"
        )


def encoded(truth: Sequence[str], *predictions: Sequence[str]) -> tuple[list[str], list[Ints]]:
    """The labels that occur, sorted, and truth and predictions as their indices int64 [n]."""
    labels = sorted({label for column in (truth, *predictions) for label in column})
    index = {label: number for number, label in enumerate(labels)}
    return labels, [np.array([index[label] for label in column], dtype=np.int64) for column in (truth, *predictions)]


def class_f1(truth: Ints, predicted: Ints, classes: int) -> NDArray[np.float64]:
    """F1 of each class, float64 [classes]; 0 where there is nothing right, NaN for classes that truth does not have."""
    right = np.bincount(truth[truth == predicted], minlength=classes)
    have, said = np.bincount(truth, minlength=classes), np.bincount(predicted, minlength=classes)
    return np.where(have > 0, 2 * right / np.maximum(have + said, 1), np.nan)


def macro_f1(truth: Ints, predicted: Ints, classes: int) -> float:
    """Mean F1 over the classes that truth has."""
    return float(np.nanmean(class_f1(truth, predicted, classes)))


def macro_f1_gain(
    truth: Ints, ours: Ints, theirs: Ints | None, classes: int, *, seed: int, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Macro-F1 of `ours`, or its lead over `theirs`, with a paired bootstrap over rows (Efron & Tibshirani 1993, ch.
    13).
    """
    rng = np.random.default_rng(seed)
    value = macro_f1(truth, ours, classes) - (macro_f1(truth, theirs, classes) if theirs is not None else 0.0)
    gains: list[float] = []
    for _ in range(resamples):
        rows = rng.integers(0, len(truth), len(truth))
        other = macro_f1(truth[rows], theirs[rows], classes) if theirs is not None else 0.0
        gains.append(macro_f1(truth[rows], ours[rows], classes) - other)
    low, high = np.quantile(gains, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def gain_in(
    metric: Metric, truth: Ints, ours: Ints, theirs: Ints, classes: int, *, seed: int, level: float
) -> Interval:
    """The lead of `ours` over `theirs` in a metric, with a paired bootstrap over rows."""
    if metric == "accuracy":
        return mean_gain(ours == truth, theirs == truth, seed=seed, level=level)
    return macro_f1_gain(truth, ours, theirs, classes, seed=seed, level=level)


def mean_gain(
    ours: Floats, theirs: Floats | None, *, seed: int, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Mean of per-row measures [n], or of their lead over another's [n], with a bootstrap over rows."""
    lead = np.asarray(ours, dtype=np.float64) - (0.0 if theirs is None else np.asarray(theirs, dtype=np.float64))
    if lead.ndim != 1 or len(lead) == 0:
        raise ValueError(f"measures: expected shape [n] with n >= 1, got {list(lead.shape)}")
    rng = np.random.default_rng(seed)
    means = [lead[rng.integers(0, len(lead), (_CHUNK, len(lead)))].mean(axis=1) for _ in range(-(-resamples // _CHUNK))]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(lead.mean()), float(low), float(high))


def weighted_calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error over equally wide bins of the highest probability (Naeini et al. 2015); both [n]."""
    return confidence_gap(torch.from_numpy(np.asarray(confidence)), torch.from_numpy(np.asarray(right)), bins)


def calibration_noise(confidence: Floats, *, seed: int, resamples: int = 200, level: float = 0.95) -> float:
    """The calibration error that a perfectly calibrated model stays under in `level` of samples of this size and
    confidence.
    """
    rng = np.random.default_rng(seed)
    values = [
        weighted_calibration_error(confidence, rng.random(len(confidence)) < confidence) for _ in range(resamples)
    ]
    return float(np.quantile(values, level))


def effective_rank(x: Floats) -> float:
    """exp of the entropy of the normalised singular values of x [n, d] (Roy & Vetterli 2007): 1 when all rows point
    the same way.
    """
    values = np.linalg.svd(np.asarray(x, dtype=np.float64), compute_uv=False)
    total = values.sum()
    if total == 0:
        return 0.0
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))
