"""The version that serves now, measured by its successor's job: with the encoder that it answers with, not with the
job's.
"""

from __future__ import annotations

import logging
from pathlib import Path

from models.errors import ModelSourceError, SondeError
from models.loader import load
from models.source import locate, parse_spec
from models.training.embeddings import Embedder
from models.training.events import emit
from models.training.job import TextContext
from models.training.tuning.encoder_tuning import open_encoder

log = logging.getLogger(__name__)

# Where an artifact fitted to all rows keeps what never saw the held-out ones: the head, and the encoder if that was
# tuned.
JUDGED = "judged"
ENCODER = "encoder"


def encoder_of(context: TextContext, directory: Path) -> Embedder | None:
    """The encoder of the incumbent in `directory`: its own, or its base's; None where it cannot be opened, which the
    events then say.
    """
    try:
        own = next((place for place in (directory / JUDGED / ENCODER, directory / ENCODER) if place.is_dir()), None)
        return open_encoder(context, own) if own else _base(context)
    except SondeError as error:
        # The reason may have a path of this machine's, which is nothing for the events.
        log.warning("the encoder of what serves now: %s", error.message)
        base = context.job.incumbent_base
        told = "its own" if base is None else f"{parse_spec(base)[0]}, version {context.job.incumbent_base_version}"
        emit(context.events, f"what serves now cannot be compared: its encoder ({told}) cannot be opened here", "warn")
        return None


def _base(context: TextContext) -> Embedder:
    """The base that the incumbent was trained on: the job's, where that is the same. Raises ModelError."""
    job = context.job
    if job.incumbent_base is None or job.incumbent_base_version == context.model.card.version:
        return context.embedder
    model = load(locate(job.incumbent_base), context.placement)
    if model.card.version != job.incumbent_base_version:
        raise ModelSourceError(
            f"expected version {job.incumbent_base_version} of {job.incumbent_base}, got {model.card.version}"
        )
    return Embedder(model, context.cache, context.events)
