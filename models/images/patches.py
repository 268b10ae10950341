"""Patch features: what the middle of an encoder says about each place of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.images.model import DescribedImageModel, ImageItem, ImageModel
from models.images.pixels import Pixels
from models.images.processor import ImageProcessor, probe_image
from models.metadata import ModelMetadata
from models.preemption import NO_PREEMPTION, Preemption

# Places of a side, and channels: a distribution for each place takes 31 MB.
_MAX_GRID = 28
_MAX_CHANNELS = 100


@runtime_checkable
class PatchEncoder(ImageModel, Protocol):
    """An encoder whose inner maps can be read."""

    def maps(self, images: Sequence[Pixels], preempt: Preemption) -> list[Tensor]:
        """Mid-level maps of images of one shape, float32 [n, channels, h, w] each, the finest first."""
        ...


class PatchFeatures(DescribedImageModel, Protocol):
    """A model whose rows are patch features, float32 [n, channels * places]."""

    channels: int

    def unflatten(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows [n, width] → patches [n, grid * grid, channels]."""
        ...


class PatchModel:
    """The patch features of an encoder as rows: float32 [n, channels * grid * grid], one row an image.

    As in PatchCore (Roth et al., 2022), each place is averaged with its neighbours, and coarser maps are scaled up.
    As in PaDiM, a fixed random choice of channels is kept.
    """

    def __init__(self, encoder: PatchEncoder) -> None:
        self._encoder = encoder
        self._chosen: Tensor | None = None
        probe = self._features([encoder.images.prepare(probe_image(64, 64))], NO_PREEMPTION)
        available, self.grid = probe.shape[1:3]
        chance = torch.Generator().manual_seed(0)
        self._chosen = torch.randperm(available, generator=chance)[:_MAX_CHANNELS].sort().values
        self.channels = len(self._chosen)
        self.metadata: ModelMetadata = replace(
            encoder.metadata, name=f"{encoder.metadata.name}:patches", width=self.channels * self.grid * self.grid
        )

    @property
    def images(self) -> ImageProcessor:
        return self._encoder.images

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Patch features, flattened, of images of one shape."""
        images = [item for item in batch if isinstance(item, Pixels)]
        return self._features(images, preempt).flatten(1).numpy()

    def unflatten(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows [n, width] → patches [n, grid * grid, channels]."""
        return unflatten(rows, self.channels)

    def memory_bytes(self) -> int:
        """Bytes of the encoder."""
        return self._encoder.memory_bytes()

    def _features(self, images: Sequence[Pixels], preempt: Preemption) -> Tensor:
        maps = [functional.avg_pool2d(one, 3, 1, 1) for one in self._encoder.maps(images, preempt)]
        grid = min(maps[0].shape[-1], _MAX_GRID)
        scaled = [functional.interpolate(one, (grid, grid), mode="bilinear") for one in maps]
        features = torch.cat(scaled, dim=1).cpu()
        return features if self._chosen is None else features[:, self._chosen]


def unflatten(rows: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Rows of patch features [n, width] → patches [n, grid * grid, channels]."""
    return rows.reshape(len(rows), channels, -1).transpose(0, 2, 1)
