"""A model of images in service: encoded images in, rows out, decoded in the pool."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError, ImageTooLarge
from models.images.detectors.detector import CalibratedImageDetector, Patches
from models.images.model import DescribedImageModel, ImageItem
from models.images.patches import PatchFeatures
from models.images.pixels import Pixels
from models.images.processor import ImageProcessor
from models.images.reader import ImageLimits, count_pixels
from models.probabilities import probabilities
from models.text.detectors.detector import ScoredTexts
from service.engine.cache import content_key
from service.engine.row_engine import RowEngine
from service.errors import DeadlineExceeded, InvalidRequest
from service.serving.servable import Caller, Servable, ServingContext, Timings
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions
from service.serving.unread_image import Encoded, ReadImage, UnreadImage, file_key

FitImages = Callable[[Patches], CalibratedImageDetector]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutput(Timings):
    """The rows of images, or of images and texts, float32 [n, width], and what was read, in the request's order."""

    values: NDArray[np.float32]
    tokens: Sequence[ImageItem | UnreadImage]


class ReadsImages(Servable):
    """What models of images have in service. Decoding is bounded by the pool's threads and by the limits."""

    reads = "images"
    images: ImageProcessor
    image_limits: ImageLimits
    patches: ServedPatches | None = None

    @property
    def engines(self) -> list[RowEngine[Any]]:
        """The engine of its rows, and that of its patch features."""
        return [self.engine, *([] if self.patches is None else [self.patches.engine])]

    async def image_rows(
        self, images: Sequence[Encoded], caller: Caller, task: str, name: Callable[[int], str]
    ) -> ImageOutput:
        """Decode images, queue them and wait for their rows. `name` gives the caller's name of the image at an index.

        Raises Overloaded before any work, ImageTooLarge for images that have too many pixels together before any is
        decoded, ImageError for one that cannot be read, and DeadlineExceeded.
        """
        with self._admit_images(len(images), name):
            items, decoded_s = await self._queueable(images, caller, task, name)
            try:
                values, queue_s, inference_s = await self._compute_rows(items, caller)
            except (ImageError, InvalidRequest):
                await self._require_readable(items, caller)  # runners read images in no order
                raise
        decoded_s += sum(item.seconds for item in items if isinstance(item, UnreadImage))
        return ImageOutput(
            inputs=len(items),
            token_count=sum(item.count for item in items),
            tokenize_s=decoded_s,
            queue_s=queue_s,
            inference_s=inference_s,
            values=values,
            tokens=items,
        )

    async def prepared(
        self, images: Sequence[Encoded], caller: Caller, name: Callable[[int], str]
    ) -> tuple[list[Pixels], Timings]:
        """Images as the network reads them, without computing. Raises as `image_rows` does."""
        with self._admit_images(len(images), name):
            items, decoded_s = await self._read_all(images, caller, self.metadata.task, name)
        tokens = sum(item.count for item in items)
        times = Timings(inputs=len(items), token_count=tokens, tokenize_s=decoded_s, queue_s=0.0, inference_s=0.0)
        return items, times

    def logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits [n, labels] of a classifier's rows."""
        return rows

    def probabilities(self, rows: NDArray[np.float32], *, multi_label: bool) -> NDArray[np.float32]:
        """The probabilities [n, labels] of a classifier's rows: all summing to 1, or each label by itself."""
        return probabilities(rows, multi_label=multi_label)

    def score(self, rows: NDArray[np.float32]) -> ScoredTexts | None:
        """How far a classifier's rows are from those that it knows; None where it was not trained here."""
        return None

    async def mixed_rows(
        self, inputs: Sequence[str | Encoded], caller: Caller, task: str, options: TokenizeOptions
    ) -> ImageOutput:
        """The rows of images and texts in the order of the request. Raises as `image_rows` and `ServedText.rows` do."""
        images = [(index, item) for index, item in enumerate(inputs) if not isinstance(item, str)]
        if len(images) == len(inputs):
            return await self.image_rows([item for _, item in images], caller, task, options.named)
        texts = [index for index, item in enumerate(inputs) if isinstance(item, str)]
        parts: list[ImageOutput | ModelOutput] = []
        if texts:
            of_texts = replace(options, name=lambda at: options.named(texts[at]))
            parts.append(await self._text_rows([str(inputs[index]) for index in texts], caller, task, of_texts))
        if images:
            encoded, places = [item for _, item in images], [index for index, _ in images]
            parts.append(await self.image_rows(encoded, caller, task, lambda at: options.named(places[at])))
        return _in_order(parts, texts + [index for index, _ in images], self.metadata.width)

    async def _text_rows(self, texts: list[str], caller: Caller, task: str, options: TokenizeOptions) -> ModelOutput:
        """The rows of texts. Raises InvalidRequest where the model reads none."""
        raise InvalidRequest.at(options.named(0), f"{self.metadata.name} reads images alone, got a text")

    def _admit_images(self, images: int, name: Callable[[int], str]) -> AbstractContextManager[None]:
        """Room for images that are not decoded yet. Raises InvalidRequest and Overloaded."""
        estimate = images * self.images.tokens
        self._require_room(estimate, name(0))
        return self._admission.admit(images, estimate, lambda: self.engine.tokens_per_s)

    async def _queueable(
        self, images: Sequence[Encoded], caller: Caller, task: str, name: Callable[[int], str]
    ) -> tuple[Sequence[Pixels | UnreadImage], float]:
        """Images for the queue, and the seconds of decoding, which runners do later where they can."""
        if not (self.engine.prepares and self.images.is_uniform):
            return await self._read_all(images, caller, task, name)
        if len(images) > 1:
            await self.run_in_pool(lambda: self._require_few_pixels(images, name))
        self._metrics.inputs.labels(self.metadata.name, task).inc(len(images))
        cost = self.images.tokens
        return [UnreadImage(encoded, self._reader(name(at)), cost) for at, encoded in enumerate(images)], 0.0

    async def _require_readable(self, items: Sequence[Pixels | UnreadImage], caller: Caller) -> None:
        """Read images that no runner has read yet, in their order. Raises the error of the first broken one."""
        for item in items:
            if isinstance(item, UnreadImage) and not item.seconds and not caller.is_late():
                await self.run_in_pool(item.prepared)

    def _reader(self, name: str) -> ReadImage:
        return lambda data, key: self.images.read(data, self.image_limits, name, key)

    async def _read_all(
        self, images: Sequence[Encoded], caller: Caller, task: str, name: Callable[[int], str]
    ) -> tuple[list[Pixels], float]:
        """Decode images in the pool; the seconds that it took."""
        began = time.perf_counter()
        items = [item async for item in self._decoded(images, caller, name, self._read)]
        self._metrics.inputs.labels(self.metadata.name, task).inc(len(items))
        return items, time.perf_counter() - began

    async def _decoded(
        self, images: Sequence[Encoded], caller: Caller, name: Callable[[int], str], read: Callable[[Encoded, str], T]
    ) -> AsyncIterator[T]:
        """What `read` makes of each image in the pool, one at a time, so that other requests get their turn.

        Raises ImageTooLarge for images with too many pixels together, before any is decoded, and DeadlineExceeded.
        """
        if len(images) > 1:
            await self.run_in_pool(lambda: self._require_few_pixels(images, name))
        for index, encoded in enumerate(images):
            if caller.is_late():
                raise DeadlineExceeded("the request's time ran out while its images were decoded")
            yield await self.run_in_pool(lambda data=encoded, at=index: read(data, name(at)))  # type: ignore[misc]

    def _require_few_pixels(self, images: Sequence[Encoded], name: Callable[[int], str]) -> None:
        """Raise ImageTooLarge for too many pixels in the images before the first one with a broken header."""
        most, pixels = self.image_limits.max_request_pixels, 0
        for index, encoded in enumerate(images):
            try:
                pixels += count_pixels(encoded(), self.image_limits, name(index))
            except (ImageError, InvalidRequest):
                return  # reading it raises this again, unless an earlier image cannot be decoded
            if pixels > most:
                expected = f"expected at most {most:,} pixels in all images of a request"
                raise ImageTooLarge(f"{name(index)}: {expected}, got more up to here; scale them", param=name(index))

    def _read(self, encoded: Encoded, name: str) -> Pixels:
        data = encoded()
        return self._reader(name)(data, file_key(data))


class ServedImages(ReadsImages):
    """A model that reads images alone."""

    def __init__(
        self, model: DescribedImageModel, engine: RowEngine[Any], context: ServingContext, limits: ImageLimits
    ) -> None:
        super().__init__(model, engine, context)
        self.images = model.images
        self.image_limits = limits


class ServedPatches(ServedImages):
    """The patch features of an encoder of images, and the detectors that were fitted to them."""

    def __init__(
        self, model: PatchFeatures, engine: RowEngine[Any], context: ServingContext, limits: ImageLimits
    ) -> None:
        super().__init__(model, engine, context, limits)
        self.model = model

    async def fitted(
        self, kind: str, images: Sequence[Encoded], caller: Caller, name: Callable[[int], str], fit: FitImages
    ) -> tuple[CalibratedImageDetector, list[ImageOutput]]:
        """Fit a detector to normal images, or take it from the cache.

        Returns the detector and the outputs computed for it, none if it was in the cache.
        """
        key = await self.run_in_pool(lambda: content_key(f"{kind} {self.label}", [_digest(one) for one in images]))
        found = self._fitted.get(key)
        if isinstance(found, CalibratedImageDetector):
            self._metrics.fitted_hits.labels(self.metadata.name).inc()
            return found, []
        self._metrics.fitted_misses.labels(self.metadata.name).inc()
        rows = await self.image_rows(images, caller, "anomaly", name)
        made = await self.run_in_pool(lambda: fit(self.model.unflatten(rows.values)))
        self._fitted.put(key, made, made.size_bytes)
        return made, [rows]


def _digest(encoded: Encoded) -> str:
    return hashlib.blake2b(encoded(), digest_size=16).hexdigest()


class ServedTextImages(ReadsImages, ServedText):
    """A model that reads texts and images, whose rows are of one space."""

    reads = "texts and images"

    def __init__(self, model: Any, engine: RowEngine[Any], context: ServingContext, limits: ImageLimits) -> None:
        ServedText.__init__(self, model, engine, context)
        self.images = model.images
        self.image_limits = limits

    async def _text_rows(self, texts: list[str], caller: Caller, task: str, options: TokenizeOptions) -> ModelOutput:
        return await self.rows(texts, caller, task, options)


def _in_order(parts: Sequence[ImageOutput | ModelOutput], places: list[int], width: int) -> ImageOutput:
    """Parts of one request as one, with each row in its place."""
    values = np.empty((len(places), width), dtype=np.float32)
    values[places] = np.concatenate([part.values for part in parts])
    items = [item for part in parts for item in part.tokens]
    return ImageOutput(
        inputs=len(places),
        token_count=sum(part.token_count for part in parts),
        truncated=sum(part.truncated for part in parts),
        tokenize_s=sum(part.tokenize_s for part in parts),
        queue_s=max(part.queue_s for part in parts),
        inference_s=sum(part.inference_s for part in parts),
        values=values,
        tokens=[items[at] for at in np.argsort(places)],
    )
