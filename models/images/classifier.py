"""Transformers directories that classify images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.images.base import ImageItem, compute_by_shape, image_metadata, load_network, to_tensor
from models.images.pixels import Pixels
from models.images.processor import load_processor
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.device import inference_mode
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.layer_hooks import LayerHooks


class ImageClassifier:
    """A `…ForImageClassification` model. Rows are logits, float32 [n, labels]."""

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        self._network = load_network(source, source.path, "AutoModelForImageClassification", placement)
        self._placement = placement
        self._layer_hooks = LayerHooks(self._network)
        self.images = load_processor(source, source.path)
        config = self._network.config
        labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
        self.metadata = image_metadata(
            source,
            placement,
            self.images,
            task="classification",
            architecture=str(config.model_type),
            width=len(labels),
            labels=labels,
            multi_label=config.problem_type == "multi_label_classification",
        )

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Logits float32 [n, labels]."""
        with inference_mode(self._placement.device), self._layer_hooks.calling(preempt):
            return compute_by_shape(batch, self.metadata.width, self._logits)

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()

    def _logits(self, images: Sequence[Pixels]) -> Tensor:
        logits: Tensor = self._network(pixel_values=to_tensor(images, self.images, self._placement)).logits
        return logits
