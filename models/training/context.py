"""What recipes work with: the job with its directory, base encoder and embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.images.model import ImageModel
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.model import TextModel
from models.training.embeddings import CachedEmbedder, Embedder, EmbeddingCache
from models.training.images.embeddings import ImageEmbedder
from models.training.images.store import ImageStore
from models.training.job import RESULT_FILES, TrainingJob
from models.training.job_events import Events
from models.training.report import Report


@dataclass(frozen=True, slots=True)
class JobContext:
    """What every recipe works with; `directory` is the attempt's own."""

    job: TrainingJob
    directory: Path
    events: Events
    report: Report

    @property
    def result(self) -> Path:
        """The directory of the files to publish."""
        return self.directory / RESULT_FILES


@dataclass(frozen=True, slots=True)
class EncoderContext(JobContext):
    """What recipes on an encoder work with: also its source, device, and cache of embeddings."""

    source: ModelSource
    placement: Placement
    cache: EmbeddingCache | None
    embedder: CachedEmbedder


@dataclass(frozen=True, slots=True)
class TextContext(EncoderContext):
    """What recipes on texts work with: also the base encoder."""

    embedder: Embedder
    model: TextModel


@dataclass(frozen=True, slots=True)
class ImageContext(EncoderContext):
    """What recipes on images work with: also the base encoder, and the decoded images."""

    embedder: ImageEmbedder
    model: ImageModel
    store: ImageStore


def prepare(job: TrainingJob, directory: Path) -> None:
    """Set the job's threads and seed, and make the directory of the result."""
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    (directory / RESULT_FILES).mkdir(exist_ok=True)


def golden_texts(
    context: EncoderContext, texts: Sequence[object], rows: Sequence[Sequence[float]], tolerances: Mapping[str, float]
) -> dict[str, object]:
    """`Outcome.golden` of texts with their rows; `tolerances` are by dtype, in the rows' unit."""
    return {"texts": list(texts), "rows": list(rows), "tolerance": tolerances[context.placement.dtype_name]}
