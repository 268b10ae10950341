"""Models that read image files, as BYTES."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from models.images.detections import DetectedObjects
from models.images.pixels import Pixels
from models.linalg import normalize
from models.metadata import OBJECT_NUMBERS
from models.programs.tensors import HostTensor
from service.api.routes.classify_images import score_own_labels
from service.api.tensors.data import bytes_tensor
from service.api.tensors.model import Specs, TensorCall, TensorModel, TensorOutput, label_tensors
from service.serving.image_model import ImageOutput, ReadsImages
from service.serving.text_recognition import ServedRecognizer
from service.serving.unread_image import Encoded


class ImageEmbeddingTensors(TensorModel[ReadsImages]):
    """Image files in, vectors of length 1 out."""

    inputs: ClassVar[Specs] = {"image": ("bytes", ("n",))}

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(call)
        return TensorOutput({"embedding": HostTensor("float32", normalize(rows.values))}, [rows])

    async def _rows(self, call: TensorCall) -> ImageOutput:
        return await self.served.image_rows(_files(call), call.caller, self.served.metadata.task, "image[{}]".format)

    def _outputs(self) -> Specs:
        return {"embedding": ("float32", ("n", self.served.metadata.width))}


class ImageClassifierTensors(ImageEmbeddingTensors):
    """Image files in, the best label and the scores of all labels out."""

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """See TensorModel."""
        return {"scores": self.served.metadata.labels}

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(call)
        scored = score_own_labels(self.served, rows, multi_label=False)
        return TensorOutput(label_tensors(scored), [rows])

    def _outputs(self) -> Specs:
        return {"label": ("bytes", ("n",)), "scores": ("float32", ("n", len(self.served.metadata.labels)))}


class ImageDetectorTensors(ImageEmbeddingTensors):
    """Image files in, scores, labels and boxes of all objects out, best first."""

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(call)
        found = [
            DetectedObjects.of_row(row, item.size)
            for item, row in zip(rows.tokens, rows.values, strict=True)
            if isinstance(item, Pixels)
        ]
        names = self.served.metadata.labels
        labels = [names[label].encode() for one in found for label in one.labels]
        outputs = {
            "score": HostTensor("float32", np.stack([one.scores for one in found])),
            "label": bytes_tensor(labels, (len(found), -1)),
            "box": HostTensor("float32", np.stack([one.boxes for one in found])),
        }
        return TensorOutput(outputs, [rows])

    def _outputs(self) -> Specs:
        objects = self.served.metadata.width // OBJECT_NUMBERS
        return {
            "score": ("float32", ("n", objects)),
            "label": ("bytes", ("n", objects)),
            "box": ("float32", ("n", objects, 4)),
        }


class TextRecognizerTensors(ImageEmbeddingTensors):
    """Image files of one line each in, texts and confidences out."""

    served: ServedRecognizer

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        pages, times = await self.served.read_pages(_files(call), call.caller, "image[{}]".format, lines=False)
        lines = [page.lines[0] for page in pages]
        confidences = np.array([line.confidence for line in lines], np.float32)
        outputs = {
            "text": bytes_tensor([line.text.encode() for line in lines]),
            "confidence": HostTensor("float32", confidences),
        }
        return TensorOutput(outputs, [times])

    def _outputs(self) -> Specs:
        return {"text": ("bytes", ("n",)), "confidence": ("float32", ("n",))}


def _files(call: TensorCall) -> list[Encoded]:
    return [partial(bytes, one) for one in call.tensors["image"].values]
