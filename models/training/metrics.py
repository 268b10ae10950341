"""Metrics of a result: accuracy, F1, calibration, ranking and effective rank, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from models.linalg import ranks_of
from models.training.hyperparameters import Metric

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

# Fewer independent rows tell nothing beyond their count: of 9 rows that are right, a resample is right, too.
FEW_ROWS = 10
_ROWS_AT_ONCE = 64
# A bootstrap of labels holds this many of them at once.
_LABELS_AT_ONCE = 1 << 15
_Z_95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its bootstrap percentile interval, which a few independent rows make too narrow (`is_few`)."""

    value: float
    low: float
    high: float
    is_few: bool = False

    @classmethod
    def of(cls, value: float, resampled: Sequence[float] | Floats, level: float, rows: int) -> Interval:
        """The interval that holds the share `level` of the values, which were resampled from independent `rows`."""
        low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
        return cls(value, float(low), float(high), rows < FEW_ROWS)

    def __str__(self) -> str:
        if self.is_few:
            return f"{self.value:.3f} (too few independent rows for an interval)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    @property
    def verdict(self) -> str:
        """What the interval says of a lead, in words."""
        if self.is_few:
            return "too few rows to tell"
        if self.low > 0:
            return "better beyond chance"
        return "worse beyond chance" if self.high < 0 else "no difference beyond chance"


def in_words(metrics: Mapping[str, float]) -> str:
    """Metrics for the job's events."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def accuracy(truth: Ints, predicted: Ints) -> float:
    """The share of rows [n] predicted right."""
    _require_same_length(truth, predicted)
    return float(np.mean(truth == predicted))


def share_of(count: int, rows: int) -> Interval:
    """A share of rows with its 95 % interval, which holds for few rows and for 0 % and 100 % (Wilson, 1927)."""
    _require_rows(rows)
    share, spread = count / rows, _Z_95**2 / rows
    half = _Z_95 * np.sqrt(share * (1 - share) / rows + spread / (4 * rows))
    low, high = ((share + spread / 2 + end) / (1 + spread) for end in (-half, half))
    return Interval(share, float(low) if count else 0.0, float(high) if count < rows else 1.0)


def calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error: the gap between confidence [n] and accuracy (`right` [n]).

    Confidence is the probability of the predicted class. The gap is that of each of `bins` equal bins of confidence,
    weighted by its rows (Naeini et al., 2015; Guo et al.: On Calibration of Modern Neural Networks, 2017). 0 is honest.
    """
    _require_same_length(confidence, right)
    confidence = np.asarray(confidence, dtype=np.float64)
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(bin_of, confidence - right)).sum() / len(confidence))


def calibration_noise(confidence: Floats, *, seed: int, resamples: int = 200, level: float = 0.95) -> float:
    """The calibration error that chance alone gives a perfectly calibrated model.

    In `level` of samples of this size and confidence [n] such a model stays below it.
    """
    rng = np.random.default_rng(seed)
    errors = [calibration_error(confidence, rng.random(len(confidence)) < confidence) for _ in range(resamples)]
    return float(np.quantile(errors, level))


def calibration_interval(confidence: Floats, right: NDArray[np.bool_], *, seed: int) -> Interval:
    """The calibration error with an interval at 95 %: chance alone moves a calibrated model's by half its width."""
    error, noise = calibration_error(confidence, right), calibration_noise(confidence, seed=seed)
    return Interval(error, max(error - noise, 0.0), min(error + noise, 1.0))


def calibration_curve(confidence: Floats, right: NDArray[np.bool_], bins: int = 10) -> dict[str, list[float]]:
    """Confidence [n] against accuracy (`right` [n]), of each of `bins` equal bins that has rows.

    Lists of mean `confidence`, of `accuracy` with its 95 % interval (`low`, `high`), and of the number of `rows`.
    """
    bin_of = np.minimum((np.asarray(confidence, np.float64) * bins).astype(np.int64), bins - 1)
    parts = [bin_of == number for number in np.unique(bin_of)]
    shares = [share_of(int(right[part].sum()), int(part.sum())) for part in parts]
    return {
        "confidence": [float(np.mean(confidence[part])) for part in parts],
        "accuracy": [share.value for share in shares],
        "low": [share.low for share in shares],
        "high": [share.high for share in shares],
        "rows": [int(part.sum()) for part in parts],
    }


def auroc(normal: Floats, strange: Floats) -> float:
    """The chance that a strange item scores higher than a normal one (scores [n] and [m]; ties count half)."""
    # By ranks (Mann and Whitney, 1947): scikit-learn's roc_auc_score gives the same 16 times slower, which hundreds of
    # bootstrap resamples would feel.
    _require_both_kinds(normal, strange)
    ranks = ranks_of(np.concatenate([normal, strange]))
    above = ranks[len(normal) :].sum() - len(strange) * (len(strange) + 1) / 2
    return float(above / (len(normal) * len(strange)))


def miscalibration(p_values: Floats, stride: int = 1, alpha: float = 0.05) -> float:
    """The distance of the false-alarm rate from alpha, by p-values [n] of normal items, beyond two standard errors.

    Of neighbours in a series, one in `stride` counts as independent.
    """
    _require_rows(len(p_values))
    independent = max(len(p_values) / stride, 1.0)
    return float(max(0.0, abs((p_values <= alpha).mean() - alpha) - 2 * np.sqrt(alpha * (1 - alpha) / independent)))


def recall_at_in_scope(normal: Floats, strange: Floats, pass_rate: float = 0.95) -> float:
    """The share of strange items caught by the threshold that lets `pass_rate` of the normal ones pass."""
    _require_both_kinds(normal, strange)
    return float(np.mean(strange > np.quantile(normal, pass_rate)))


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation of two columns [n]; 0 when one of them is constant."""
    _require_same_length(a, b)
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(ranks_of(a), ranks_of(b))[0, 1])


def ndcg(grades: Sequence[Sequence[float]], scores: Sequence[Sequence[float]], k: int = 10) -> float:
    """Mean nDCG@k over queries: for each, its documents' grades (≥ 0) and the scores that rank them.

    Gain 2^grade - 1, discount log2(rank + 1) (Järvelin and Kekäläinen, 2002). Equal scores keep the file's order
    reversed, the worst case: a constant model gains nothing. Queries without a relevant document are left out.
    """
    values = [
        _query_ndcg(np.asarray(g, float), np.asarray(s, float), k)
        for g, s in zip(grades, scores, strict=True)
        if any(grade > 0 for grade in g)
    ]
    if not values:
        raise ValueError("no query has a relevant document")
    return float(np.mean(values))


def _query_ndcg(grades: Floats, scores: Floats, k: int) -> float:
    order = np.lexsort((-np.arange(len(scores)), -scores))[:k]
    discount = 1 / np.log2(np.arange(2, len(order) + 2))
    gains = 2.0**grades - 1
    return float((gains[order] * discount).sum() / (np.sort(gains)[::-1][:k] * discount).sum())


def encoded(truth: Sequence[str], *predictions: Sequence[str]) -> tuple[list[str], list[Ints]]:
    """The labels that occur, sorted, and truth and predictions as their indices int64 [n]."""
    labels = sorted({label for column in (truth, *predictions) for label in column})
    index = {label: number for number, label in enumerate(labels)}
    return labels, [np.array([index[label] for label in column], dtype=np.int64) for column in (truth, *predictions)]


def class_f1(truth: Ints, predicted: Ints, classes: int) -> NDArray[np.float64]:
    """F1 of each class, float64 [classes]; NaN for classes without a true row."""
    scores: NDArray[np.float64] = _LabelCounts(truth, predicted, classes).f1(np.arange(len(truth))[None])[0]
    return scores


class _LabelCounts:
    """True, predicted and right labels, counted in samples of the rows.

    A bootstrap counts 2,000 samples. scikit-learn's f1_score takes 1.6 ms for one of 77 classes, this some 0.04.
    """

    def __init__(self, truth: Ints, predicted: Ints, classes: int) -> None:
        _require_same_length(truth, predicted)
        right = np.where(truth == predicted, truth, classes)  # wrong ones are counted apart
        self._columns, self._size = (truth, predicted, right), classes + 1

    def f1(self, samples: Ints) -> NDArray[np.float64]:
        """F1 of each class, float64 [samples, classes], in samples of row numbers [samples, n]."""
        true, positive, right = (self._count(column[samples]) for column in self._columns)
        return np.where(true > 0, 2 * right / np.maximum(true + positive, 1), np.nan)

    def _count(self, labels: Ints) -> Ints:
        count = len(labels)
        of_sample = labels + self._size * np.arange(count)[:, None]
        counts = np.bincount(of_sample.ravel(), minlength=count * self._size)
        return counts.reshape(count, self._size)[:, :-1]


def macro_f1(truth: Ints, predicted: Ints, classes: int) -> float:
    """Mean F1 over the classes that have a true row."""
    return float(np.nanmean(class_f1(truth, predicted, classes)))


def macro_f1_gain(
    truth: Ints, ours: Ints, theirs: Ints | None, classes: int, *, seed: int, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Macro-F1 of `ours`, or its lead over `theirs`, with a paired bootstrap over rows.

    Efron and Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13. Where all rows are right, each resample
    is, too; then the interval is that of the share of right rows.
    """
    counts = [_LabelCounts(truth, labels, classes) for labels in (ours, theirs) if labels is not None]

    def gain(samples: Ints) -> Floats:
        means: list[Floats] = [np.nanmean(one.f1(samples), axis=1) for one in counts]
        return means[0] if theirs is None else np.subtract(*means)

    rng, count = np.random.default_rng(seed), len(truth)
    if theirs is None and (truth == ours).all():
        return replace(share_of(count, count), is_few=count < FEW_ROWS)
    step = max(1, _LABELS_AT_ONCE // count)
    draws = (rng.integers(0, count, (min(step, resamples - at), count)) for at in range(0, resamples, step))
    gains = np.concatenate([gain(samples) for samples in draws])
    return Interval.of(float(gain(np.arange(count)[None])[0]), gains, level, count)


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
    means = [
        lead[rng.integers(0, len(lead), (_ROWS_AT_ONCE, len(lead)))].mean(axis=1)
        for _ in range(-(-resamples // _ROWS_AT_ONCE))
    ]
    return Interval.of(float(lead.mean()), np.concatenate(means), level, len(lead))


def effective_rank(x: Floats) -> float:
    """exp of the entropy of the normalized singular values of x [n, d] (Roy and Vetterli, 2007).

    It is 1 when all rows point the same way.
    """
    values = np.linalg.svd(np.asarray(x, dtype=np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def _require_same_length(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    """Refuse what broadcasting would compare silently."""
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"expected two columns [n] of one length, n >= 1, got {list(a.shape)} and {list(b.shape)}")


def _require_both_kinds(normal: Floats, strange: Floats) -> None:
    if not len(normal) or not len(strange):
        raise ValueError(f"expected scores of both kinds, got {len(normal)} normal and {len(strange)} strange")


def _require_rows(rows: int) -> None:
    """Refuse what would divide by no rows, or find nothing wrong with them."""
    if rows < 1:
        raise ValueError(f"expected a row or more, got {rows}")
