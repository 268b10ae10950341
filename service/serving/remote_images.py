"""Models of images of a front: decoded and scaled here, computed in the engine process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.images.patches import unflatten
from models.images.processor import ImageProcessor
from models.images.text_recognizer import LineReader
from models.metadata import ModelMetadata
from models.source import ModelSource
from models.text.tokenization import TextProcessor
from service.engine.frames import Opened


class RemoteImages:
    """A model of images of the engine process as its front knows it."""

    def __init__(self, metadata: ModelMetadata, memory_bytes: int, images: ImageProcessor) -> None:
        self.metadata = metadata
        self.images = images
        self._memory_bytes = memory_bytes

    def memory_bytes(self) -> int:
        """Bytes that it held on the device when it was opened."""
        return self._memory_bytes


class RemoteTextImages(RemoteImages):
    """The same for a model that reads texts, too."""

    def __init__(self, opened: Opened, images: ImageProcessor) -> None:
        super().__init__(opened.metadata, opened.memory_bytes, images)
        self.text = TextProcessor.from_json(opened.tokenizer, opened.metadata.max_tokens)


class RemoteRecognizer(RemoteImages):
    """The same for a model whose rows are texts."""

    def __init__(self, opened: Opened, images: ImageProcessor, source: ModelSource) -> None:
        super().__init__(opened.metadata, opened.memory_bytes, images)
        lines = LineReader(source, images, opened.metadata.width // 2, opened.ends)
        self.ends, self.prepare_line, self.read_row = lines.ends, lines.prepare_line, lines.read_row


class RemotePatches(RemoteImages):
    """The patch features of an encoder."""

    def __init__(self, metadata: ModelMetadata, memory_bytes: int, images: ImageProcessor, channels: int) -> None:
        super().__init__(metadata, memory_bytes, images)
        self.channels = channels

    def unflatten(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows [n, width] → patches [n, grid * grid, channels]."""
        return unflatten(rows, self.channels)


def remote_images(opened: Opened, images: ImageProcessor, source: ModelSource) -> RemoteImages:
    """What a front knows of a model of images."""
    if opened.metadata.task == "ocr":
        return RemoteRecognizer(opened, images, source)
    if opened.metadata.max_tokens:
        return RemoteTextImages(opened, images)
    return RemoteImages(opened.metadata, opened.memory_bytes, images)
