"""The check at load that an image's row does not depend on what is beside it in a batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.images.classifier import ImageClassifier
from models.images.detections import summarize
from models.images.encoder import ImageEncoder
from models.images.lite_encoder import LiteEncoder
from models.images.model import ImageItem, ImageModel
from models.images.object_detector import ObjectDetector
from models.images.processor import probe_image
from models.images.text_image_encoder import TextImageEncoder
from models.images.text_recognizer import TextRecognizer
from models.preemption import NO_PREEMPTION, Preemption
from models.text.batch_check import OneItemByOne, compute_alone, find_fault

log = logging.getLogger(__name__)

LoadedImageModel = ImageClassifier | ImageEncoder | LiteEncoder | ObjectDetector | TextImageEncoder | TextRecognizer
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


class OneLineByOne(OneImageByOne):
    """The same for a model whose rows are texts."""

    def __init__(self, model: TextRecognizer) -> None:
        super().__init__(model)
        self.ends, self.prepare_line, self.read_row = model.ends, model.prepare_line, model.read_row


class _Comparable(OneImageByOne):
    """A model by that part of its rows which does not jump where two values are nearly equal.

    An object detector's objects may change places then, and another token leads to another text.
    """

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Summaries of objects, the probability of a text's first token, or else the rows themselves."""
        rows = self._model.forward(batch, preempt)
        if isinstance(self._model, ObjectDetector):
            return summarize(rows, len(self.metadata.labels))
        return rows[:, rows.shape[1] // 2, None] if isinstance(self._model, TextRecognizer) else rows


def check_image_batches(model: LoadedImageModel) -> ImageModel:
    """The model, where inputs have the same rows alone and in company; else the model one input at a time.

    The metadata says what was found. Raises ModelSourceError for a model that cannot compute an input alone.
    """
    probes: list[ImageItem] = [model.images.prepare(probe_image(400, 300, seed)) for seed in range(2)]
    if isinstance(model, TextImageEncoder):
        probes += model.text.encode([_SHORT, _LONG])
    compared = _Comparable(model)
    expected = np.concatenate([compute_alone(compared, probe, "an input") for probe in probes])
    fault = find_fault(compared, probes, expected, _DEPENDS)
    if not fault:
        model.metadata = replace(model.metadata, batches="inputs share batches, their rows are those of inputs alone")
        return model
    log.warning("model %s computes one input at a time: %s", model.metadata.name, fault)
    model.metadata = replace(model.metadata, batches=f"one input at a time: {fault}", one_by_one=True, pads=False)
    if isinstance(model, TextRecognizer):
        return OneLineByOne(model)
    return OneTextOrImageByOne(model) if isinstance(model, TextImageEncoder) else OneImageByOne(model)
