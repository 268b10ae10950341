"""What a detector is: scores of embeddings, and p-values by what is known of normal items.

A detector is fitted to normal items [m, d] and keeps `calibration`, the scores [m] of normal items that had no part
in what scored them (each left out, or out of fold). A new normal item is then flagged at `alpha` about as often as
alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from models.calibration import conformal_p_values, conformal_threshold

Kind = Literal["knn", "mahalanobis", "energy", "combined"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Scores [n], p-values [n], and the nearest reference items: indices int64 [n, k] and cosine similarities [n, k].

    A detector that keeps no items names none: k is 0.
    """

    scores: Tensor
    p_values: Tensor
    nearest: Tensor
    similarities: Tensor


class Detector(Protocol):
    """What serving asks of a detector."""

    calibration: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Scores [n] of embeddings [n, d]; higher is stranger."""
        ...

    def judge(self, x: Tensor, *, explain: int = 3) -> Verdict:
        """Scores and p-values of embeddings [n, d]."""
        ...

    def threshold(self, alpha: float) -> float | None:
        """The score from which an item is an anomaly at `alpha`; None when there were too few items to tell."""
        ...


class Calibrated(nn.Module):
    """The part that all detectors share: calibration scores, and verdicts by them."""

    kind: ClassVar[Kind]
    # How many normal items it takes to be fitted.
    least: ClassVar[int] = 2
    calibration: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calibration", torch.empty(0))

    def threshold(self, alpha: float) -> float | None:
        """The score from which an item is an anomaly at `alpha`; None when there were too few items to tell."""
        return conformal_threshold(self.calibration, alpha)

    def judge(self, x: Tensor, *, explain: int = 3) -> Verdict:
        """Scores and p-values of items [n, d]."""
        scores: Tensor = self(x)
        none = torch.empty(len(x), 0)
        return Verdict(scores, conformal_p_values(self.calibration, scores), none.long(), none)

    def calibrate(self, scores: Tensor) -> Self:
        """Take the scores [m] of normal items that this detector, or one like it, was not fitted to."""
        if scores.ndim != 1 or not len(scores) or not bool(torch.isfinite(scores).all()):
            raise ValueError(f"calibration: expected finite scores [m], m >= 1, got {list(scores.shape)}")
        self.calibration = scores.float().contiguous()
        return self

    def settings(self) -> dict[str, object]:
        """What `detector.json` keeps beside the tensors."""
        return {}
