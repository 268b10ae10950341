"""The temperature that makes a classifier's probabilities honest."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import cross_entropy

_LOWEST, _HIGHEST = 0.02, 50.0
_STEPS = 60
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of least negative log-likelihood for unseen items.

    Logits are float [n, classes], labels int64 [n]. One number leaves the order of the classes as it is (Guo et al.:
    On Calibration of Modern Neural Networks, 2017). The likelihood is concave in 1/T, so a golden-section search on
    log T finds the one best. Data without a single mistake would send it to 0; the bounds are 0.02 and 50.
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


def _loss(logits: Tensor, labels: Tensor, log_temperature: float) -> float:
    return float(cross_entropy(logits / math.exp(log_temperature), labels))
