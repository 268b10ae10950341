"""Transformers directories that classify images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from models.images.model import ImageNetwork, image_metadata
from models.images.pixels import Pixels
from models.runtime.placement import Placement
from models.source import ModelSource


class ImageClassifier(ImageNetwork):
    """A `…ForImageClassification` model. Rows are logits, float32 [n, labels]."""

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        super().__init__(source, placement, "AutoModelForImageClassification")
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

    def _rows(self, images: Sequence[Pixels]) -> Tensor:
        logits: Tensor = self._network(pixel_values=self._to_tensor(images)).logits
        return logits
