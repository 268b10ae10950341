"""A model of images in service: encoded images in, rows out, decoded in the pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.images.base import ImageItem, ImageModel
from models.images.processor import ImageProcessor
from models.images.reader import ImageLimits
from service.engine.row_engine import RowEngine
from service.errors import DeadlineExceeded
from service.serving.servable import Caller, Servable, ServingContext, Timings
from service.serving.text_model import ServedText

# Encoded images, or what gives them: base64 is decoded in the pool, too.
Encoded = Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutput(Timings):
    """The rows of images, or of images and texts, float32 [n, width], and what was read, in the request's order."""

    values: NDArray[np.float32]
    tokens: list[ImageItem]


class ReadsImages(Servable):
    """What models of images have in service. Decoding is bounded by the pool's threads and by the limits."""

    images: ImageProcessor
    image_limits: ImageLimits

    async def image_rows(
        self, images: Sequence[Encoded], caller: Caller, task: str, name: Callable[[int], str]
    ) -> ImageOutput:
        """Decode images, queue them and wait for their rows. `name` gives the caller's name of the image at an index.

        Raises Overloaded before any work, ImageError for the first image that cannot be read, and DeadlineExceeded.
        """
        estimate = len(images) * self.images.tokens
        self._require_room(estimate, name(0))
        with self._admission.admit(len(images), estimate, lambda: self.engine.tokens_per_s):
            began = time.perf_counter()
            items: list[ImageItem] = []
            for index, encoded in enumerate(images):  # one at a time, so that other requests get their turn
                if caller.is_late():
                    raise DeadlineExceeded("the request's time ran out while its images were decoded")
                items.append(await self.run_in_pool(lambda data=encoded, at=index: self._read(data, name(at))))  # type: ignore[misc]
            decoded_s = time.perf_counter() - began
            self._metrics.inputs.labels(self.metadata.name, task).inc(len(items))
            values, queue_s, inference_s = await self._compute_rows(items, caller)
        return ImageOutput(
            inputs=len(items),
            token_count=sum(item.count for item in items),
            tokenize_s=decoded_s,
            queue_s=queue_s,
            inference_s=inference_s,
            values=values,
            tokens=items,
        )

    def _read(self, encoded: Encoded, name: str) -> ImageItem:
        return self.images.read(encoded(), self.image_limits, name)


class ServedImages(ReadsImages):
    """A model that reads images alone."""

    def __init__(self, model: ImageModel, engine: RowEngine[Any], context: ServingContext, limits: ImageLimits) -> None:
        super().__init__(model, engine, context)
        self.images = model.images
        self.image_limits = limits


class ServedTextImages(ReadsImages, ServedText):
    """A model that reads texts and images, whose rows are of one space."""

    def __init__(self, model: Any, engine: RowEngine[Any], context: ServingContext, limits: ImageLimits) -> None:
        ServedText.__init__(self, model, engine, context)
        self.images = model.images
        self.image_limits = limits


def serve_images(
    model: ImageModel, engine: RowEngine[Any], context: ServingContext, limits: ImageLimits
) -> ServedImages | ServedTextImages:
    """A model of images in service, which may read texts as well."""
    kind = ServedTextImages if model.metadata.max_tokens else ServedImages
    return kind(model, engine, context, limits)
