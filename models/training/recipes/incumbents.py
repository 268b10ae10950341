"""The version in service, measured by its successor's job with the encoder that it answers with."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from models.errors import ModelSourceError, SondeError
from models.loader import load
from models.sensors.model import AnomalyModel, Forecaster
from models.sensors.serialization import load_sensor
from models.source import locate, parse_spec
from models.training.context import EncoderContext, JobContext, TextContext
from models.training.embeddings import CachedEmbedder, Embedder
from models.training.job import TrainingJob
from models.training.job_events import Events, emit
from models.training.tuning.encoder_tuning import open_encoder

log = logging.getLogger(__name__)

# Where an artifact fitted to all rows keeps what never saw the held-out ones: head or sensor model, and a tuned
# encoder.
JUDGED = "judged"
ENCODER = "encoder"


@dataclass(frozen=True, slots=True)
class IncumbentText:
    """A head or detector in service: the directory of the files that were judged, and the encoder they answer with."""

    directory: Path
    embedder: CachedEmbedder


def open_incumbent(context: EncoderContext) -> IncumbentText | None:
    """The head or detector in service; None where there is none, or its encoder cannot be opened."""
    path = context.job.incumbent
    if path is None:
        return None
    try:
        own = next((place for place in (path / JUDGED / ENCODER, path / ENCODER) if place.is_dir()), None)
        embedder = open_encoder(context, own) if own else open_base(context)
    except SondeError as error:
        # The message may name a path of this machine, so it stays out of the events.
        log.warning("cannot open the encoder of the served model: %s", error.message)
        base = context.job.incumbent_base
        name = "its own" if base is None else f"{parse_spec(base)[0]}, version {context.job.incumbent_base_version}"
        emit_incomparable(context.events, f"its encoder ({name}) cannot be opened here")
        return None
    return IncumbentText(_judged_files(path), embedder)


def incumbent_encoder(job: TrainingJob) -> Path | None:
    """The tuned encoder in service; None where there is none."""
    encoder = None if job.incumbent is None else job.incumbent / ENCODER
    return encoder if encoder is not None and encoder.is_dir() else None


def load_incumbent_sensor(context: JobContext) -> AnomalyModel | Forecaster | None:
    """The sensor model in service, as it was judged; None where there is none, or it cannot be read."""
    if context.job.incumbent is None:
        return None
    try:
        return load_sensor(_judged_files(context.job.incumbent))
    except ModelSourceError as error:
        emit_incomparable(context.events, error.message)
        return None


def emit_incomparable(events: Events, reason: str) -> None:
    """Say why the version in service is not compared."""
    emit(events, f"the served model cannot be compared: {reason}", "warn")


def _judged_files(path: Path) -> Path:
    return path / JUDGED if (path / JUDGED).is_dir() else path


def open_base(context: EncoderContext) -> CachedEmbedder:
    """The base that the incumbent was trained on: the job's, where that is the same. Raises ModelError."""
    job = context.job
    if job.incumbent_base is None or job.incumbent_base_version == context.embedder.metadata.version:
        return context.embedder
    if not isinstance(context, TextContext):
        raise ModelSourceError(f"versions of image models are compared on one encoder, not with {job.incumbent_base}")
    model = load(locate(job.incumbent_base), context.placement)
    version = model.metadata.version
    if version != job.incumbent_base_version:
        raise ModelSourceError(f"expected version {job.incumbent_base_version} of {job.incumbent_base}, got {version}")
    return Embedder(model, context.cache, context.events)
