"""The check at load that an image's row does not depend on what is beside it in a batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.images.base import ImageItem, ImageModel
from models.images.classifier import ImageClassifier
from models.images.detections import summarize
from models.images.encoder import ImageEncoder
from models.images.lite_encoder import LiteEncoder
from models.images.object_detector import ObjectDetector
from models.images.processor import probe_image
from models.images.text_image_encoder import TextImageEncoder
from models.preemption import NO_PREEMPTION, Preemption
from models.text.batch_check import OneItemByOne, compute_alone, find_fault

log = logging.getLogger(__name__)

LoadedImageModel = ImageClassifier | ImageEncoder | LiteEncoder | ObjectDetector | TextImageEncoder
_DEPENDS = "a row depends on the other inputs of its batch"
_SHORT, _LONG = "a", "a photo of a card on the table"


class OneImageByOne(OneItemByOne[ImageItem]):
    """A model that computes each input alone."""

    def __init__(self, model: LoadedImageModel) -> None:
        super().__init__(model)
        self.images = model.images


class OneTextOrImageByOne(OneImageByOne):
    """The same for a model that reads texts, too."""

    def __init__(self, model: TextImageEncoder) -> None:
        super().__init__(model)
        self.text = model.text


class _InAnyOrder(OneImageByOne):
    """An object detector by summaries of its rows: objects of nearly equal scores may change places."""

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Summaries float32 [n, labels + 4]."""
        return summarize(self._model.forward(batch, preempt), len(self.metadata.labels))


def check_image_batches(model: LoadedImageModel) -> ImageModel:
    """The model, where inputs have the same rows alone and in company; else the model one input at a time.

    The metadata says what was found. Raises ModelSourceError for a model that cannot compute an input alone.
    """
    probes: list[ImageItem] = [model.images.prepare(probe_image(400, 300, seed)) for seed in range(2)]
    if isinstance(model, TextImageEncoder):
        probes += model.text.encode([_SHORT, _LONG])
    compared = _InAnyOrder(model) if isinstance(model, ObjectDetector) else model
    expected = np.concatenate([compute_alone(compared, probe, "an input") for probe in probes])
    fault = find_fault(compared, probes, expected, _DEPENDS)
    if not fault:
        model.metadata = replace(model.metadata, batches="inputs share batches, their rows are those of inputs alone")
        return model
    log.warning("model %s computes one input at a time: %s", model.metadata.name, fault)
    model.metadata = replace(model.metadata, batches=f"one input at a time: {fault}", one_by_one=True, pads=False)
    return OneTextOrImageByOne(model) if isinstance(model, TextImageEncoder) else OneImageByOne(model)
