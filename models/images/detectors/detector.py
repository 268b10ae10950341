"""The base of image detectors: scores of patches, of images, and p-values by normal images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.p_values import conformal_p_values, conformal_threshold

Patches = NDArray[np.float32]
# An image is as strange as the mean of this share of its places.
_STRANGEST = 0.01


@dataclass(frozen=True, slots=True)
class ScoredImages:
    """Scores [n] and p-values [n] of images, and the scores of their places [n, places]."""

    scores: Tensor
    p_values: Tensor
    places: Tensor


class PatchDetector(Protocol):
    """What scores the places of images."""

    kind: ClassVar[str]

    def places(self, patches: Patches) -> Tensor:
        """Scores [n, places] of patches [n, places, channels]; higher is stranger."""
        ...

    @property
    def size_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class CalibratedImageDetector:
    """A detector of patches with the scores [m] that its own normal images have when each is left out."""

    detector: PatchDetector
    calibration: Tensor

    @property
    def size_bytes(self) -> int:
        return self.detector.size_bytes + self.calibration.nbytes

    @property
    def count(self) -> int:
        """The normal images that it was fitted to."""
        return len(self.calibration)

    def threshold(self, alpha: float) -> float | None:
        """The least score of an anomaly at `alpha`; None with too few normal images."""
        return conformal_threshold(self.calibration, alpha)

    def score(self, patches: Patches) -> ScoredImages:
        """Scores and p-values of images by their patches [n, places, channels]."""
        with torch.inference_mode():
            places = self.detector.places(patches)
            scores = image_scores(places)
            return ScoredImages(scores, conformal_p_values(self.calibration, scores), places)


def image_scores(places: Tensor) -> Tensor:
    """Scores [n] of images by the scores [n, places] of their places: the mean of the strangest ones."""
    most = max(int(_STRANGEST * places.shape[1]), 1)
    return places.topk(most, dim=1).values.mean(dim=1)
