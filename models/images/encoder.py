"""Encoders of images: one vector an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from models.images.model import ImageNetwork, image_metadata
from models.images.pixels import Pixels
from models.images.processor import probe_image
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.device import inference_mode
from models.runtime.placement import Placement
from models.source import ModelSource


class ImageEncoder(ImageNetwork):
    """A transformers body such as DINOv2's. The vector, not normalized, is its pooler's, else the first token's."""

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        super().__init__(source, placement, "AutoModel")
        with inference_mode(placement.device):
            width = self._rows([self.images.prepare(probe_image(64, 64))]).shape[1]
        self.metadata = image_metadata(
            source,
            placement,
            self.images,
            task="embedding",
            architecture=str(self._network.config.model_type),
            width=width,
        )

    def maps(self, images: Sequence[Pixels], preempt: Preemption = NO_PREEMPTION) -> list[Tensor]:
        """Two maps of the middle layers, float32 [n, channels, h, w], the finer first."""
        with inference_mode(self._placement.device), self._layer_hooks.calling(preempt):
            pixels = self._to_tensor(images)
            layers = self._network(pixel_values=pixels, output_hidden_states=True).hidden_states
        middle = len(layers) // 2
        return [_to_map(layers[at], pixels).float() for at in (middle, middle + 1)]

    def _rows(self, images: Sequence[Pixels]) -> Tensor:
        return body_vectors(self._network, self._to_tensor(images))


def body_vectors(network: Any, pixels: Tensor) -> Tensor:
    """Vectors [n, width] of a body from `load_network` for images [n, 3, h, w]."""
    output = network(pixel_values=pixels)
    pooled: Tensor | None = output.get("pooler_output") if network.has_pooler else None
    vectors: Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
    return vectors


def _to_map(layer: Tensor, pixels: Tensor) -> Tensor:
    """A layer's output as a map [n, channels, h, w]; tokens before those of the patches are left out."""
    if layer.dim() == 4:
        return layer
    height, width = pixels.shape[2:]
    rows = int((layer.shape[1] * height / width) ** 0.5)
    columns = rows * width // height
    return layer[:, -rows * columns :].transpose(1, 2).reshape(len(layer), -1, rows, columns)
