"""Tuning of a classifier's encoder, and the tuned encoder as serving opens it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from models.errors import ModelSourceError
from models.loader import load, load_images
from models.source import locate
from models.training.context import EncoderContext, ImageContext
from models.training.embeddings import CachedEmbedder, Embedder
from models.training.hyperparameters import ClassificationHyperparameters
from models.training.images.embeddings import ImageEmbedder
from models.training.tuning.batches import Augment
from models.training.tuning.labelled_tuning import LabelledTuning, Method, OpenEncoder, default_settings
from models.training.tuning.settings import TunerSettings, augmenter, merge_settings
from models.training.tuning.trainable_encoder import TrainableEncoder

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncoderTuning:
    """Tunes a job's encoder; all stages share method and settings, each has its own directory.

    `augment` changes the training rows as `augmentation` says. `open_trainable` opens the encoder to tune.
    """

    context: EncoderContext
    how: Method
    settings: TunerSettings
    augmentation: BaseModel
    augment: Augment | None
    open_trainable: OpenEncoder = TrainableEncoder

    @classmethod
    def of_texts(cls, context: EncoderContext, settings: ClassificationHyperparameters, rows: int) -> EncoderTuning:
        """The tuning of an encoder of texts on this number of rows."""
        how: Method = settings.mode if settings.mode in ("full", "lora") else "contrastive"
        asked = merge_settings(default_settings(how, rows), settings, seed=context.job.seed)
        tuner = replace(asked, mode="full") if settings.mode == "auto" else asked
        augment = augmenter(settings.augmentation, context.job.seed)
        return cls(context, how, tuner, settings.augmentation, augment)

    def run(self, stage: str, texts: Sequence[str], labels: Sequence[str], *, add_findings: bool = False) -> Path:
        """Tune an encoder on texts, or keys of images, with labels and return its directory.

        `add_findings` adds findings to the job's report. The job's checkpoint is resumed where it is of this stage.
        Raises TrainingError.
        """
        context, checkpoint = self.context, self.context.job.checkpoint
        of_this_stage = checkpoint is not None and stage in {parent.name for parent in checkpoint.parents}
        tuning = LabelledTuning(
            context.source,
            context.placement,
            texts,
            labels,
            self.settings,
            context.events,
            context.directory / stage,
            checkpoint=checkpoint if of_this_stage else None,
            augment=self.augment,
            report=context.report if add_findings else None,
            open_encoder=self.open_trainable,
        )
        return tuning.contrastive() if self.how == "contrastive" else tuning.under_head()

    def temporary(self, stage: str, texts: Sequence[str], labels: Sequence[str]) -> TemporaryEncoder:
        """The embeddings of an encoder tuned on texts with labels, without its files."""
        return TemporaryEncoder(self, stage, texts, labels)

    def digest(self, texts: Sequence[str], labels: Sequence[str]) -> bytes:
        """A digest of the encoder that these texts and labels give."""
        version, dtype = self.context.source.version, self.context.placement.dtype_name
        about = (version, dtype, self.how, asdict(self.settings), self.augmentation.model_dump(), self.augment is None)
        return hashlib.sha256(repr((about, list(texts), list(labels))).encode("utf-8", "surrogatepass")).digest()


class TemporaryEncoder:
    """Embeddings by an encoder that is tuned on first use, and deleted.

    The job's cache keeps the embeddings by the encoder's digest, so a resumed job does not tune it again.
    """

    def __init__(self, tuning: EncoderTuning, stage: str, texts: Sequence[str], labels: Sequence[str]) -> None:
        self._tuning, self._context, self._stage = tuning, tuning.context, stage
        self._texts, self._labels = texts, labels
        self._salt = tuning.digest(texts, labels)
        self._embedder: CachedEmbedder | None = None

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Embeddings float32 [n, d] of texts."""
        cache = self._context.cache
        keys = [hashlib.sha256(self._salt + text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        known = cache.get(sorted(set(keys)), self._context.embedder.width) if cache else {}
        if all(key in known for key in keys):
            return np.stack([known[key] for key in keys])
        rows = self._encoder()(texts)
        if cache:
            cache.put(zip(keys, rows, strict=True))
        return rows

    def _encoder(self) -> CachedEmbedder:
        if self._embedder is None:
            directory = self._tuning.run(self._stage, self._texts, self._labels)
            # Without the cache, which keeps these rows by the digest already.
            self._embedder = open_encoder(replace(self._context, cache=None), directory)
            shutil.rmtree(directory.parent)
        return self._embedder


def open_encoder(context: EncoderContext, directory: Path) -> CachedEmbedder:
    """The encoder in a directory, through the loader that serving uses. Raises ModelError."""
    source = locate(f"tuned={directory}")
    if not isinstance(context, ImageContext):
        return Embedder(load(source, context.placement), context.cache, context.events)
    model = load_images(source, context.placement)
    if model is None:
        raise ModelSourceError(f"{source.name}: expected an encoder of images, got one of texts")
    size, expected = ((one.images.signature.height, one.images.signature.width) for one in (model, context.model))
    if size != expected:  # the store has images as the job's encoder reads them
        raise ModelSourceError(f"{source.name}: expected an encoder of images of {expected}, got one of {size}")
    return ImageEmbedder(model, context.store, context.cache, context.events)
