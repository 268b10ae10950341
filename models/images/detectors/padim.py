"""PaDiM (Defard et al., 2021): a normal distribution for each place of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.images.detectors.detector import CalibratedImageDetector, Patches, image_scores

# Added to each variance, as a share of the mean one: without it, few images have a singular covariance.
_RIDGE = 0.01
LEAST_IMAGES = 3


@dataclass(frozen=True, slots=True)
class Padim:
    """The Mahalanobis distance of each place from the normal images' mean at that place."""

    kind: ClassVar[str] = "padim"

    mean: Tensor  # [places, channels]
    precision: Tensor  # [places, channels, channels]

    @property
    def size_bytes(self) -> int:
        return self.mean.nbytes + self.precision.nbytes

    def places(self, patches: Patches) -> Tensor:
        """Distances [n, places] of patches [n, places, channels]."""
        return _squared(torch.from_numpy(patches) - self.mean, self.precision).sqrt()


def fit_padim(patches: Patches) -> CalibratedImageDetector:
    """Fit normal images by their patches [m, places, channels], m >= 3, and calibrate by leaving each out.

    Leaving an image out changes mean and covariance by a term of rank one, so its distance has a closed form
    (Sherman, Morrison, 1950).
    """
    count = len(patches)
    if count < LEAST_IMAGES:
        raise ValueError(f"patches: expected at least {LEAST_IMAGES} images, got {count}")
    with torch.inference_mode():
        x = torch.from_numpy(patches)
        mean = x.mean(dim=0)
        centred = (x - mean).transpose(0, 1)
        covariance = centred.mT @ centred / (count - 1)
        ridge = _RIDGE * covariance.diagonal(dim1=1, dim2=2).mean().clamp(min=1e-6)
        precision = torch.linalg.inv(covariance + ridge * torch.eye(x.shape[2]))
        squared = _squared(x - mean, precision)
        spread = 1 - squared * count / (count - 1) ** 2
        left_out = squared * (count / (count - 1)) ** 2 * ((count - 2) / (count - 1)) / spread.clamp(min=1e-6)
        return CalibratedImageDetector(Padim(mean, precision), image_scores(left_out.sqrt()))


def _squared(centred: Tensor, precision: Tensor) -> Tensor:
    """Squared distances [n, places] of centred patches [n, places, channels]."""
    by_place = centred.transpose(0, 1)
    return ((by_place @ precision) * by_place).sum(dim=2).clamp(min=0).T
