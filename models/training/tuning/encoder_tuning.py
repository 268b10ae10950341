"""A classifier's encoder tuned on the job's labelled texts, and opened again as serving will open it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.loader import load
from models.source import locate
from models.training.embeddings import Embedder
from models.training.hyperparameters import ClassificationHyperparameters
from models.training.job import TextContext
from models.training.tuning.augment import Augmenter

Floats = NDArray[np.float32]


class EncoderTuning:
    """How a job's encoder is tuned, as often as it is: every stage with the same settings and in a directory of its
    own name.
    """

    def __init__(self, context: TextContext, settings: ClassificationHyperparameters, rows: int) -> None:
        from models.training.tuning.contrastive import own_settings
        from models.training.tuning.settings import chosen

        self.how: Literal["contrastive", "full", "lora"] = (
            settings.mode if settings.mode in ("full", "lora") else "contrastive"
        )
        asked = chosen(own_settings(self.how, rows), settings, seed=context.job.seed)
        self._context = context
        self._settings = replace(asked, mode="full") if settings.mode == "auto" else asked
        self._augmentation = settings.augmentation.model_dump()

    def run(self, stage: str, texts: Sequence[str], labels: Sequence[str], *, told: bool = False) -> Path:
        """The directory of an encoder tuned on texts with labels; `told`: what the ladder's rungs see goes to the
        job's report.

        Goes on from the job's checkpoint where that is of this stage. Raises TrainingError.
        """
        from models.training.tuning.contrastive import tune_contrastive, tune_with_head

        context = self._context
        augment = Augmenter(self._augmentation, context.job.seed) if any(self._augmentation.values()) else None
        checkpoint = context.job.checkpoint
        if checkpoint is not None and stage not in {parent.name for parent in checkpoint.parents}:
            checkpoint = None
        more: dict[str, Any] = {
            "directory": context.directory / stage,
            "augment": augment,
            "report": context.report if told else None,
        }
        tune = tune_contrastive if self.how == "contrastive" else tune_with_head
        path: Path = tune(
            context.source, context.placement, texts, labels, self._settings, context.events, checkpoint, **more
        )
        return path

    def passing(self, stage: str, texts: Sequence[str], labels: Sequence[str]) -> TemporaryEncoder:
        """The embeddings of such an encoder without the encoder."""
        return TemporaryEncoder(self, self._context, stage, texts, labels)

    def digest(self, texts: Sequence[str], labels: Sequence[str]) -> bytes:
        """What tells the encoder tuned on these texts from every other."""
        about = (
            self._context.source.version,
            self._context.placement.dtype_name,
            self.how,
            asdict(self._settings),
            self._augmentation,
        )
        return hashlib.sha256(repr((about, list(texts), list(labels))).encode("utf-8", "surrogatepass")).digest()


class TemporaryEncoder:
    """Embeddings by an encoder that is tuned when it is needed, and not kept.

    They are in the job's cache under what it was tuned on: a job that was stopped and goes on does not tune it again.
    """

    def __init__(
        self, tuning: EncoderTuning, context: TextContext, stage: str, texts: Sequence[str], labels: Sequence[str]
    ) -> None:
        self._tuning, self._context, self._stage = tuning, context, stage
        self._texts, self._labels = texts, labels
        self._salt = tuning.digest(texts, labels)
        self._embedder: Embedder | None = None

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

    def _encoder(self) -> Embedder:
        if self._embedder is None:
            directory = self._tuning.run(self._stage, self._texts, self._labels)
            # Without the cache: it has these rows under the tuning already, and nobody meets this encoder again.
            self._embedder = open_encoder(replace(self._context, cache=None), directory)
            shutil.rmtree(directory.parent)
        return self._embedder


def open_encoder(context: TextContext, directory: Path) -> Embedder:
    """An encoder from its directory, through the loader that serving uses."""
    source = locate(f"tuned={directory}")
    return Embedder(load(source, context.placement), context.cache, context.events)
