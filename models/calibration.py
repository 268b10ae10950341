"""Numbers that keep a promise: conformal p-values and temperatures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TEMPERATURES = (0.02, 50.0)
_SEARCH_STEPS = 60


def conformal_p_values(calibration: Tensor, scores: Tensor) -> Tensor:
    """The share of calibration scores at least as strange as each score, itself counted: float64 [n] in (0, 1].

    p = (1 + #{c ≥ s}) / (1 + m) for m calibration scores [m]; on exchangeable normal data P(p ≤ alpha) ≤ alpha
    (Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005).
    """
    _require_vector(calibration, "calibration")
    _require_vector(scores, "scores")
    ordered = calibration.sort().values
    below = torch.searchsorted(ordered, scores.contiguous(), right=False)
    return (1.0 + len(ordered) - below.double()) / (1.0 + len(ordered))


def conformal_threshold(calibration: Tensor, alpha: float) -> float | None:
    """The score above which `conformal_p_values` is at most alpha; None when no score can be that strange.

    m calibration scores resolve p-values of 1/(m+1) and no finer.
    """
    _require_vector(calibration, "calibration")
    allowed = int(alpha * (len(calibration) + 1) + 1e-9) - 1
    if allowed < 0:
        return None
    ordered = calibration.sort(descending=True).values
    return float(ordered[allowed]) if allowed < len(ordered) else float("-inf")


def smallest_p_value(calibrated_on: int) -> float:
    """The finest p-value that so many calibration scores can give."""
    return 1.0 / (calibrated_on + 1)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of least negative log-likelihood for logits [n, classes] of unseen items with labels int64 [n].

    One number that leaves the order of the classes as it is (Guo et al.: On Calibration of Modern Neural Networks,
    2017). The likelihood is concave in 1/T, so that a golden-section search on log T finds the one best, the same on
    every run; it stays within 0.02 to 50, where data without a single mistake would send it to 0.
    """
    _require_logits(logits, labels)
    known = logits.double()
    low, high = (math.log(t) for t in _TEMPERATURES)
    shrink = (math.sqrt(5) - 1) / 2
    inner = [high - shrink * (high - low), low + shrink * (high - low)]
    losses = [_nll(known, labels, at) for at in inner]
    for _ in range(_SEARCH_STEPS):
        if losses[0] <= losses[1]:
            high, inner[1], losses[1] = inner[1], inner[0], losses[0]
            inner[0] = high - shrink * (high - low)
            losses[0] = _nll(known, labels, inner[0])
        else:
            low, inner[0], losses[0] = inner[0], inner[1], losses[1]
            inner[1] = low + shrink * (high - low)
            losses[1] = _nll(known, labels, inner[1])
    return math.exp((low + high) / 2)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """How far the confidence of the first label is from how often it is right: 0 to 1, 0 is honest.

    Probabilities [n, classes], labels int64 [n]; see `confidence_gap`.
    """
    _require_logits(probabilities, labels)
    confidence, predicted = probabilities.double().max(dim=-1)
    return confidence_gap(confidence, predicted == labels, bins)


def confidence_gap(confidence: Tensor, right: Tensor, bins: int = 15) -> float:
    """The gap between mean confidence [n] and accuracy (`right` [n]) in `bins` equal bins of confidence, weighted by
    their size.

    The expected calibration error of Guo et al., 2017; 0 without any rows.
    """
    _require_vector(confidence, "confidence")
    _require_vector(right, "right")
    sure = confidence.double()
    place = (sure * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, sure - right.double())
    return float(gaps.abs().sum() / max(len(sure), 1))


def _nll(logits: Tensor, labels: Tensor, log_temperature: float) -> float:
    return float(torch.nn.functional.cross_entropy(logits / math.exp(log_temperature), labels))


def _require_logits(rows: Tensor, labels: Tensor) -> None:
    if rows.ndim != 2 or labels.ndim != 1 or len(rows) != len(labels) or not len(labels):
        raise ValueError(
            f"expected rows [n, classes] and labels [n], n >= 1, got {list(rows.shape)} and {list(labels.shape)}"
        )


def _require_vector(tensor: Tensor, name: str) -> None:
    """Refuse what broadcasting would silently turn into a matrix."""
    if tensor.ndim != 1:
        raise ValueError(f"{name}: expected shape [n], got {list(tensor.shape)}")
