"""Confidence: probabilities no sharper than the rows that judged them, and the chance of being in scope."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

_LOWEST, _HIGHEST = 0.02, 50.0
_STEPS = 60
_GOLDEN = (math.sqrt(5) - 1) / 2
# The prior of the temperature: this many more rows, whose label is any of all. Platt has two, for two classes.
_PRIOR_ROWS = 2.0
# The level of the upper bound of the error rate, one-sided.
_LEVEL = 0.95
# A text this many standard deviations of the normal items' scores above their mean is in scope with probability ½, and
# this many change the odds by e.
SCOPE_EDGE, _SCOPE_SLOPE = 3.0, 0.5
# Equal normal scores differ by rounding.
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True, slots=True)
class Confidence:
    """The temperature of a head's logits, and the most that its probabilities may be."""

    temperature: float = 1.0
    ceiling: float = 1.0

    @classmethod
    def fitted(cls, logits: Tensor, labels: Tensor) -> Confidence:
        """By logits [n, classes] of unseen items with class numbers int64 [n]; the default for none."""
        if not len(labels):
            return cls()
        temperature = fit_temperature(logits, labels)
        sure, predicted = (logits.double() / temperature).softmax(dim=-1).max(dim=-1)
        return cls(temperature, ceiling_of(sure.numpy(), (predicted == labels).numpy()))

    def probabilities(self, logits: Tensor, *, multi_label: bool = False) -> Tensor:
        """Logits [n, classes], already at the temperature → probabilities that sum to 1, or each class by itself.

        Where one is above the ceiling, they are mixed with uniform ones until it is not; the order of the classes
        stays.
        """
        if multi_label:
            return logits.sigmoid().clamp(min(1 - self.ceiling, 0.5), max(self.ceiling, 0.5))
        likely, uniform = logits.softmax(dim=-1), 1 / logits.shape[-1]
        highest = likely.max(dim=-1, keepdim=True).values
        above = (highest - max(self.ceiling, uniform)).clamp(min=0)
        share = above / (highest - uniform).clamp(min=torch.finfo(likely.dtype).tiny)
        return torch.where(above > 0, (1 - share) * likely + share * uniform, likely)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of least negative log-likelihood for unseen items, with a prior.

    Logits are float [n, classes], labels int64 [n]. One number leaves the order of the classes as it is (Guo et al.: On
    Calibration of Modern Neural Networks, 2017). The prior is two more rows whose label is uniform over the classes,
    shared out over all rows (Platt: Probabilistic Outputs for Support Vector Machines, 1999). So n rows without a
    mistake support an error rate of about 1 / n and no lower. The likelihood is concave in 1/T, so a golden-section
    search on log T finds the one best between 0.02 and 50.
    """
    # Not scipy's minimize_scalar: where the loss is 0 over a range of temperatures, it stops at the largest of them.
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels) or not len(labels):
        raise ValueError(
            f"expected logits [n, classes] and labels [n], n >= 1, got {list(logits.shape)} and {list(labels.shape)}"
        )
    logits = logits.double()
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    left_loss, right_loss = _loss(logits, labels, left), _loss(logits, labels, right)
    for _ in range(_STEPS):
        if left_loss <= right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - _GOLDEN * (high - low)
            left_loss = _loss(logits, labels, left)
        else:
            low, left, left_loss = left, right, right_loss
            right = low + _GOLDEN * (high - low)
            right_loss = _loss(logits, labels, right)
    return math.exp((low + high) / 2)


def ceiling_of(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The highest probability that judged rows can support, by each row's confidence [n] and whether it was right [n].

    Of the m surest rows k were wrong. Their error rate may be as high as the upper bound of Clopper and Pearson (The
    Use of Confidence or Fiducial Limits, 1934) at 95 %. The m with the lowest bound counts. Without errors the bound is
    about 3 / n, so that the ceiling is 0.928 for 40 rows, and 0.997 for 1,000.
    """
    from scipy.special import betaincinv  # takes a fifth of a second to import, and only fitting needs it

    wrong = np.cumsum(~right[np.argsort(-confidence, kind="stable")])
    rows = np.arange(1, len(right) + 1)
    bounds = np.where(wrong < rows, betaincinv(wrong + 1, np.maximum(rows - wrong, 1), _LEVEL), 1.0)
    return float(1.0 - bounds.min())


def in_scope(calibration: Tensor, scores: Tensor, *, edge: float = SCOPE_EDGE) -> Tensor:
    """The probability [n] that items with these anomaly scores [n] belong, by those of normal items [m].

    A logistic function of the distance from the normal items' mean score in their standard deviations. Its two
    constants are the same for all models, since most have no rows that are out of scope.
    """
    distance = scores - calibration.mean()
    deviation = (calibration - calibration.mean()).square().mean().sqrt().clamp(min=_LEAST_DEVIATION)
    return torch.sigmoid((edge - distance / deviation) / _SCOPE_SLOPE)


def _loss(logits: Tensor, labels: Tensor, log_temperature: float) -> float:
    smoothing = _PRIOR_ROWS / (len(labels) + _PRIOR_ROWS)
    return float(cross_entropy(logits / math.exp(log_temperature), labels, label_smoothing=smoothing))
