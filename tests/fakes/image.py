"""A model of images without weights: rows that follow from the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.images.model import ImageItem
from models.images.pixels import Pixels
from models.images.processor import ImageProcessor
from models.images.text_recognizer import RecognizedText
from models.metadata import OBJECT_NUMBERS, ModelMetadata
from models.preemption import NO_PREEMPTION, Preemption
from tests.support.tiny_image_models import processor


@cache
def _processor(name: str, *, whole_size: bool) -> ImageProcessor:
    """The processor of all fakes called `name`: to make one takes longer than most tests."""
    return ImageProcessor(processor("vit"), name, whole_size=whole_size)


class FakeImages:
    """An encoder whose vector is an image's mean colour."""

    def __init__(self, name: str = "images", **fields: Any) -> None:
        self.images = _processor(name, whole_size=fields.get("task") in {"detection", "ocr"})
        shape: dict[str, Any] = {"task": "embedding", "width": 3, "max_tokens": 0, "vocabulary": 0, "pads": False}
        about = dict.fromkeys(("version", "origin", "architecture", "reason"), "fake")
        self.metadata = ModelMetadata(
            name=name, device="cpu", dtype="float32", image=self.images.signature, **(about | shape | fields)
        )

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Rows float32 [n, width]."""
        return np.stack([self.row(item) for item in batch if isinstance(item, Pixels)])

    def row(self, pixels: Pixels) -> NDArray[np.float32]:
        """The mean of each colour."""
        means: NDArray[np.float32] = pixels.values.mean(axis=(1, 2), dtype=np.float32)
        return means

    def memory_bytes(self) -> int:
        return 0


class FakeDetector(FakeImages):
    """An object detector that finds a cat in the left half of each image, and a dog with less confidence."""

    def __init__(self, name: str = "objects") -> None:
        super().__init__(name, task="detection", width=2 * OBJECT_NUMBERS, labels=("dog", "cat"))

    def row(self, pixels: Pixels) -> NDArray[np.float32]:
        """Two objects, the worse first."""
        return np.array([0.4, 0, 0, 0, 1, 1, 0.9, 1, 0, 0, 0.5, 1], np.float32)


class FakeRecognizer(FakeImages):
    """A recogniser that reads how bright a line is."""

    def __init__(self, name: str = "reader") -> None:
        super().__init__(name, task="ocr", width=2)

    def prepare_line(self, line: Image.Image) -> Pixels:
        """The line, which costs more where it is longer."""
        return replace(self.images.prepare(line), steps=line.width // line.height)

    def row(self, pixels: Pixels) -> NDArray[np.float32]:
        """Its mean colour, and how sure it is."""
        return np.array([pixels.values.mean(), 0.5], np.float32)

    def read_row(self, row: NDArray[np.float32]) -> RecognizedText:
        """A line darker than half is cut."""
        return RecognizedText(f"{row[0]:.0f}", float(row[1]), truncated=bool(row[0] < 128))
