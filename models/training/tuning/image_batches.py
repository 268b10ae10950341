"""Images of a job as the tensors of a training batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.images.model import by_shape
from models.training.images.embeddings import ImageSource
from models.training.tuning.batches import InputPart, ReadColumns

PIXELS = "pixel_values"


@dataclass(frozen=True, slots=True)
class ImageBatchReader:
    """Reads images by their keys: uint8 [m, 3, h, w] for those of one shape."""

    source: ImageSource

    def read(self, columns: Sequence[Sequence[str]]) -> ReadColumns:
        """See InputReader; images are one column."""
        images = [self.source.pixels(key) for key in columns[0]]
        parts = tuple(
            InputPart({PIXELS: torch.from_numpy(np.stack([images[at].values for at in places]))}, torch.tensor(places))
            for places in by_shape(images).values()
        )
        return ReadColumns((parts,), sum(image.count for image in images))
