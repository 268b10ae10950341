"""Energy: a head's lack of evidence for any class."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from models.text.detectors.detector import CalibratedTextDetector
from models.text.heads import LinearHead


class EnergyDetector(CalibratedTextDetector):
    """A linear head's energy: -T · logsumexp(logits / T) (Liu et al., 2020).

    `fit` takes normal embeddings [m, d] that the head was not trained on. Where it was trained on all items, give
    out-of-fold logits to `fit_logits` instead.
    """

    kind = "energy"
    weight: Tensor
    bias: Tensor

    def __init__(self, head: LinearHead) -> None:
        super().__init__()
        # The head's temperature calibrates probabilities; the energy uses the uncalibrated logits.
        self.register_buffer("weight", head.weight.clone())
        self.register_buffer("bias", head.bias.clone())

    def fit(self, x: Tensor) -> Self:
        """Calibrate by normal items [m, d] that the head has not seen."""
        return self.calibrate(self(x))

    def fit_logits(self, logits: Tensor) -> Self:
        """Calibrate by out-of-fold logits [m, classes], at temperature 1."""
        return self.calibrate(energy(logits))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of items [n, d]."""
        return energy(x.float() @ self.weight.T + self.bias)


def energy(logits: Tensor) -> Tensor:
    """Scores [n] of logits [n, classes] at temperature 1; higher is more anomalous."""
    if logits.ndim != 2:
        raise ValueError(f"logits: expected shape [n, classes], got {list(logits.shape)}")
    return -torch.logsumexp(logits.float(), dim=-1)
