"""The check at load that an image's row does not depend on what is beside it in a batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelSourceError, SondeError
from models.images.base import ImageItem, ImageModel
from models.images.classifier import ImageClassifier
from models.images.encoder import ImageEncoder
from models.images.lite_encoder import LiteEncoder
from models.images.processor import probe_image
from models.images.text_image_encoder import TextImageEncoder
from models.preemption import NO_PREEMPTION, Preemption
from models.text.batch_check import TOLERANCE

log = logging.getLogger(__name__)

LoadedImageModel = ImageClassifier | ImageEncoder | LiteEncoder | TextImageEncoder
Rows = NDArray[np.float32]
_SHORT, _LONG = "a", "a photo of a card on the table"


class OneImageByOne:
    """A model whose rows depend on the batch, so that it computes each input alone."""

    def __init__(self, model: LoadedImageModel) -> None:
        self._model = model
        self.metadata = model.metadata
        self.images = model.images

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> Rows:
        """One float32 row [width] per item, in order."""
        return np.concatenate([self._model.forward([item], preempt) for item in batch])

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._model.memory_bytes()


class OneTextOrImageByOne(OneImageByOne):
    """The same for a model that reads texts, too."""

    def __init__(self, model: TextImageEncoder) -> None:
        super().__init__(model)
        self.text = model.text


def check_image_batches(model: LoadedImageModel) -> ImageModel:
    """The model, where inputs have the same rows alone and in company; else the model one input at a time.

    The metadata says what was found. Raises ModelSourceError for a model that cannot compute an input alone.
    """
    probes: list[ImageItem] = [model.images.prepare(probe_image(400, 300, seed)) for seed in range(2)]
    if isinstance(model, TextImageEncoder):
        probes += model.text.encode([_SHORT, _LONG])
    fault = _find_fault(model, probes, np.concatenate([_compute_alone(model, probe) for probe in probes]))
    if not fault:
        model.metadata = replace(model.metadata, batches="inputs share batches, their rows are those of inputs alone")
        return model
    log.warning("model %s computes one input at a time: %s", model.metadata.name, fault)
    model.metadata = replace(model.metadata, batches=f"one input at a time: {fault}", one_by_one=True, pads=False)
    return OneTextOrImageByOne(model) if isinstance(model, TextImageEncoder) else OneImageByOne(model)


def _compute_alone(model: ImageModel, item: ImageItem) -> Rows:
    """The row of one input, float32 [1, width]."""
    name = model.metadata.name
    try:
        row = model.forward([item])
    except SondeError:
        raise
    except Exception as error:  # transformers has no error class of its own
        message = f"{name}: expected a row for an input, the model raised {error!r}"
        raise ModelSourceError(message, param="model") from error
    if not np.isfinite(row).all():
        raise ModelSourceError(f"{name}: expected finite numbers for an input, got NaN or infinity", param="model")
    return row


def _find_fault(model: ImageModel, probes: list[ImageItem], expected: Rows) -> str:
    """Why rows [n, width] of probes in one batch are not those `expected`; empty where they are."""
    try:
        rows = model.forward(probes)
    except SondeError:
        raise
    except Exception as error:  # a network may raise anything for a batch; inputs alone are computed then
        return f"it computes no batch ({error})"
    longest = float(np.linalg.norm(expected, axis=1).max())
    difference = float(np.linalg.norm(rows - expected, axis=1).max()) / (longest or 1.0)
    if difference <= TOLERANCE[model.metadata.dtype]:
        return ""
    return f"a row depends on the other inputs of its batch, by {difference:.1%} of its length"
