"""Neighbours and energy combined."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from models.text.detectors.detector import CalibratedTextDetector, ScoredTexts
from models.text.detectors.energy import EnergyDetector
from models.text.detectors.knn import KnnDetector


class CombinedDetector(CalibratedTextDetector):
    """Distance to normal items plus energy, each standardised by its calibration scores.

    The distance finds texts unlike all normal ones, the energy texts between the classes. On CLINC150 the sum finds
    more out-of-scope texts than either (benchmarks/training.py). Both detectors must be fitted to the same normal items
    in the same order.
    """

    kind = "combined"
    scale: Tensor

    def __init__(self, knn: KnnDetector, energetic: EnergyDetector) -> None:
        super().__init__()
        self.knn = knn
        self.energetic = energetic
        # Mean and standard deviation of the kNN's calibration scores, and of the energy's.
        self.register_buffer("scale", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))

    def fit(self) -> Self:
        """Standardise both and calibrate by the sums of their calibration scores."""
        known = (self.knn.calibration, self.energetic.calibration)
        if known[0].shape != known[1].shape:
            raise ValueError(f"expected calibration by the same items, got {len(known[0])} and {len(known[1])} scores")
        self.scale = torch.tensor(
            [[float(scores.mean()), max(float(scores.std(unbiased=False)), 1e-6)] for scores in known]
        )
        return self.calibrate(self._standardised_sum(*known))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of items [n, d]."""
        return self._standardised_sum(self.knn(x), self.energetic(x))

    def score(self, x: Tensor, *, explain: int = 3) -> ScoredTexts:
        """Scores and p-values of items [n, d], and the `explain` nearest normal items of each."""
        near = self.knn.score(x, explain=explain)
        scores = self._standardised_sum(near.scores, self.energetic(x))
        return self.with_p_values(scores, near.nearest, near.similarities)

    def settings(self) -> dict[str, object]:
        """The number of neighbours."""
        return self.knn.settings()

    def _standardised_sum(self, near: Tensor, energies: Tensor) -> Tensor:
        mean, deviation = self.scale.unbind(dim=1)
        return (near - mean[0]) / deviation[0] + (energies - mean[1]) / deviation[1]
