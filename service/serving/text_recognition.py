"""A model in service that writes the text of images: pages in, lines of text out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import Image

from models.images.pixels import Pixels
from models.images.reader import ImageLimits, read_image
from models.images.text_lines import Box, find_lines
from models.images.text_recognizer import RecognizedText, RecognizesText
from service.engine.row_engine import RowEngine
from service.serving.image_model import ServedImages
from service.serving.servable import Caller, ServingContext, Timings
from service.serving.unread_image import Encoded


@dataclass(frozen=True, slots=True)
class RecognizedPage:
    """An image with its lines of text, in reading order; `size` are its width and height."""

    size: tuple[int, int]
    boxes: list[Box]
    lines: list[RecognizedText]


@dataclass(frozen=True, slots=True)
class _CutPage:
    size: tuple[int, int]
    boxes: list[Box]
    lines: list[Pixels]


class ServedRecognizer(ServedImages):
    """A model that writes the text of an image, and a detector of lines before it."""

    def __init__(
        self, model: RecognizesText, engine: RowEngine[Any], context: ServingContext, limits: ImageLimits
    ) -> None:
        super().__init__(model, engine, context, limits)
        self.model = model

    async def read_pages(
        self, images: Sequence[Encoded], caller: Caller, name: Callable[[int], str], *, lines: bool
    ) -> tuple[list[RecognizedPage], Timings]:
        """The texts of images; without `lines`, each is one line. Raises as `image_rows` does.

        Lines of all pages are queued together, so that those of one length share batches.
        """
        began = time.perf_counter()
        with self._admit_images(len(images), name):
            pages = await self._cut_pages(images, caller, name, lines=lines)
        items = [line for page in pages for line in page.lines]
        tokens, cut_s = sum(item.count for item in items), time.perf_counter() - began
        values, queue_s, inference_s = np.empty((0, self.metadata.width), np.float32), 0.0, 0.0
        if items:
            with self._admission.admit(len(items), tokens, lambda: self.engine.tokens_per_s):
                values, queue_s, inference_s = await self._compute_rows(items, caller)
        texts = iter(await self.run_in_pool(lambda: [self.model.read_row(row) for row in values]))
        read = [RecognizedPage(page.size, page.boxes, [next(texts) for _ in page.lines]) for page in pages]
        truncated = sum(line.truncated for page in read for line in page.lines)
        times = Timings(
            inputs=len(images),
            token_count=tokens,
            truncated=truncated,
            tokenize_s=cut_s,
            queue_s=queue_s,
            inference_s=inference_s,
        )
        return read, times

    async def _cut_pages(
        self, images: Sequence[Encoded], caller: Caller, name: Callable[[int], str], *, lines: bool
    ) -> list[_CutPage]:
        """Decode images in the pool, one at a time, and cut them into lines."""
        pages: list[_CutPage] = []
        tokens, cut = 0, self._cut_lines if lines else self._take_whole
        async for page in self._decoded(images, caller, name, cut):
            tokens += sum(line.count for line in page.lines)
            self._require_room(tokens, name(len(pages)))
            pages.append(page)
        self._metrics.inputs.labels(self.metadata.name, self.metadata.task).inc(len(images))
        return pages

    def _cut_lines(self, encoded: Encoded, name: str) -> _CutPage:
        image = read_image(encoded(), self.image_limits, name)
        return self._prepare(image, find_lines(image, name))

    def _take_whole(self, encoded: Encoded, name: str) -> _CutPage:
        image = read_image(encoded(), self.image_limits, name)
        return self._prepare(image, [Box(0, 0, *image.size)])

    def _prepare(self, image: Image, boxes: list[Box]) -> _CutPage:
        return _CutPage(image.size, boxes, [self.model.prepare_line(image.crop(box.corners)) for box in boxes])
