"""Transformers directories that find objects in images: DETR, RT-DETR, YOLOS and their like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.errors import ModelSourceError
from models.images.model import ImageNetwork, image_metadata
from models.images.pixels import Pixels
from models.images.processor import probe_image
from models.runtime.device import inference_mode
from models.runtime.placement import Placement
from models.source import ModelSource

# All objects are kept: callers choose the threshold.
_BELOW_ALL = -1.0


class ObjectDetector(ImageNetwork):
    """A `…ForObjectDetection` model. A row has all objects that it gives, float32 [n, objects * 6].

    Of each: score, label, and left, top, right and bottom as shares of the sides.

    These networks are trained to find an object once, so no box is suppressed by another. Images of one size share a
    batch: padding would change what a convolution sees at the edges.
    """

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        super().__init__(source, placement, "AutoModelForObjectDetection", whole_size=True)
        if not hasattr(self.images.processor, "post_process_object_detection"):
            kind = type(self.images.processor).__name__
            message = f"{source.name}: expected an image processor that reads boxes, got {kind}"
            raise ModelSourceError(message, param="model")
        with inference_mode(placement.device):
            width = self._rows([self.images.prepare(probe_image(640, 480))]).shape[1]
        config = self._network.config
        self.metadata = image_metadata(
            source,
            placement,
            self.images,
            task="detection",
            architecture=str(config.model_type),
            width=width,
            labels=tuple(str(config.id2label[index]) for index in range(config.num_labels)),
        )

    def _rows(self, images: Sequence[Pixels]) -> Tensor:
        output = self._network(pixel_values=self._to_tensor(images))
        # bfloat16 would round the numbers of labels above 256.
        output.logits, output.pred_boxes = output.logits.float(), output.pred_boxes.float()
        found = self.images.processor.post_process_object_detection(output, threshold=_BELOW_ALL)
        return torch.stack([_row(one["scores"], one["labels"], one["boxes"]) for one in found])


def _row(scores: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
    """Score, label and corners of each object, one after the other."""
    return torch.cat([scores[:, None], labels[:, None].to(scores), boxes], dim=1).flatten()
