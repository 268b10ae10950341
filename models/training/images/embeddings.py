"""Embeddings of a job's images by a frozen encoder, cached on disk by content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

from models.images.model import ImageModel
from models.images.pixels import Pixels
from models.text.tokenization import Tokens
from models.training.embeddings import CachedEmbedder, EmbeddingCache
from models.training.job_events import Events

_BATCH_IMAGES = 16


class ImageSource(Protocol):
    """Images by their keys; `settings` are what they depend on beside the keys."""

    @property
    def settings(self) -> tuple[object, ...]: ...

    def pixels(self, key: str) -> Pixels:
        """An image as a network reads it."""
        ...


class ImageEmbedder(CachedEmbedder):
    """Images, by their keys in a source, to embeddings."""

    def __init__(
        self, model: ImageModel, source: ImageSource, cache: EmbeddingCache | None = None, events: Events | None = None
    ) -> None:
        self._tokens = model.images.tokens
        self._source = source
        super().__init__(model, [str(model.images.signature), *source.settings], cache, events)

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """Nothing: images have no tokens, and heads on them read none."""
        return []

    def count_tokens(self, texts: Sequence[str]) -> int:
        """The cost of images, in tokens of texts that take as long."""
        return len(texts) * self._tokens

    def _batches(self, missing: dict[bytes, str]) -> Iterator[tuple[list[bytes], Sequence[Pixels]]]:
        rest = iter(missing.items())
        while batch := dict(islice(rest, _BATCH_IMAGES)):
            yield list(batch), [self._source.pixels(key) for key in batch.values()]
