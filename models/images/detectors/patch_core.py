"""PatchCore (Roth et al., 2022): the distance to the nearest of a few normal patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.images.detectors.detector import CalibratedImageDetector, Patches, image_scores

BANK = 500
# Patches among which the bank is chosen, and numbers of a projected patch: both bound the time of the choice.
_CANDIDATES = 20_000
_PROJECTED = 64
LEAST_IMAGES = 2


@dataclass(frozen=True, slots=True)
class PatchCore:
    """A bank of normal patches in standardised channels."""

    kind: ClassVar[str] = "patchcore"

    mean: Tensor  # [channels]
    deviation: Tensor  # [channels]
    bank: Tensor  # [patches, channels]

    @property
    def size_bytes(self) -> int:
        return self.mean.nbytes + self.deviation.nbytes + self.bank.nbytes

    def places(self, patches: Patches) -> Tensor:
        """Distances [n, places] of patches [n, places, channels] to the nearest in the bank."""
        return torch.stack([self._distances(one).amin(dim=1) for one in torch.from_numpy(patches)])

    def places_without(self, patches: Patches, owners: Tensor) -> Tensor:
        """The same for the images of the bank, each without its own patches; `owners` [patches] has their images."""
        found = []
        for number, one in enumerate(torch.from_numpy(patches)):
            distances = self._distances(one)
            distances[:, owners == number] = torch.inf
            found.append(distances.amin(dim=1))
        return torch.stack(found)

    def _distances(self, patches: Tensor) -> Tensor:
        return torch.cdist((patches - self.mean) / self.deviation, self.bank)


def fit_patch_core(patches: Patches) -> CalibratedImageDetector:
    """Fit normal images by their patches [m, places, channels], m >= 2, and calibrate by leaving each out.

    The bank is a greedy k-center choice: always the patch farthest from those chosen. The same patches always give
    the same bank.
    """
    count, places, channels = patches.shape
    if count < LEAST_IMAGES:
        raise ValueError(f"patches: expected at least {LEAST_IMAGES} images, got {count}")
    with torch.inference_mode():
        x = torch.from_numpy(patches).reshape(-1, channels)
        mean, deviation = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
        chance = torch.Generator().manual_seed(0)
        candidates = torch.randperm(len(x), generator=chance)[:_CANDIDATES]
        chosen = candidates[_choose_centers((x[candidates] - mean) / deviation, BANK, chance)]
        detector = PatchCore(mean, deviation, (x[chosen] - mean) / deviation)
        return CalibratedImageDetector(detector, image_scores(detector.places_without(patches, chosen // places)))


def _choose_centers(x: Tensor, most: int, chance: torch.Generator) -> Tensor:
    """Indices of at most `most` rows of x [n, d], each as far as possible from those before."""
    projected = x @ torch.randn(x.shape[1], min(_PROJECTED, x.shape[1]), generator=chance)
    squares = (projected**2).sum(dim=1)
    chosen, nearest = [0], torch.full((len(x),), torch.inf)
    while len(chosen) < min(most, len(x)):
        last = projected[chosen[-1]]
        nearest = torch.minimum(nearest, squares - 2 * (projected @ last) + (last**2).sum())
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)
