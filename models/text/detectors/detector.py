"""The base of text detectors: anomaly scores of embeddings, and p-values by normal items.

A detector is fitted to normal items [m, d] and keeps `calibration`, their out-of-sample scores [m] (leave-one-out or
out of fold). At `alpha` it then flags about a share alpha of new normal items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from models.p_values import conformal_p_values, conformal_threshold
from models.text.confidence import in_scope

Kind = Literal["knn", "mahalanobis", "energy", "combined"]


@dataclass(frozen=True, slots=True)
class ScoredTexts:
    """Scores [n], p-values [n], probabilities [n] of being in scope, and the k nearest reference items of each.

    `nearest` are indices int64 [n, k], `similarities` cosines [n, k]. k is 0 for a detector that keeps no items.
    """

    scores: Tensor
    p_values: Tensor
    in_scope: Tensor
    nearest: Tensor
    similarities: Tensor


class CalibratedTextDetector(nn.Module):
    """Base of the detectors: calibration scores, and p-values by them."""

    kind: ClassVar[Kind]
    # The least normal items of a fit.
    least: ClassVar[int] = 2
    calibration: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calibration", torch.empty(0))

    def threshold(self, alpha: float) -> float | None:
        """The least score of an anomaly at `alpha`; None with too few normal items."""
        return conformal_threshold(self.calibration, alpha)

    def score(self, x: Tensor, *, explain: int = 3) -> ScoredTexts:
        """Scores and p-values of items [n, d]."""
        scores: Tensor = self(x)
        none = torch.empty(len(x), 0)
        return self.with_p_values(scores, none.long(), none)

    def with_p_values(self, scores: Tensor, nearest: Tensor, similarities: Tensor) -> ScoredTexts:
        """What the calibration says about scores [n]."""
        p_values, belongs = conformal_p_values(self.calibration, scores), in_scope(self.calibration, scores)
        return ScoredTexts(scores, p_values, belongs, nearest, similarities)

    def calibrate(self, scores: Tensor) -> Self:
        """Calibrate by the out-of-sample scores [m] of normal items."""
        if scores.ndim != 1 or not len(scores) or not bool(torch.isfinite(scores).all()):
            raise ValueError(f"calibration: expected finite scores [m], m >= 1, got {list(scores.shape)}")
        self.calibration = scores.float().contiguous()
        return self

    def settings(self) -> dict[str, object]:
        """The settings in `detector.json`."""
        return {}
