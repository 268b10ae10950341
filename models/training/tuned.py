"""A classifier's encoder tuned on the job's labelled texts, and opened again as serving will open it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from models.loader import load
from models.source import locate
from models.training.augment import Augmenter
from models.training.embedded import Embedder
from models.training.errors import TrainingError
from models.training.events import say
from models.training.hyperparameters import Classification
from models.training.job import Context


def retrained(context: Context, settings: Classification, texts: Sequence[str], labels: Sequence[str]) -> Path | None:
    """The directory of an encoder tuned on texts with labels; None where mode auto has nothing to tune on.

    Raises TrainingError when a mode asked for by name cannot be done.
    """
    from models.training.contrastive import own_settings, tune_contrastive, tune_with_head
    from models.training.settings import chosen

    how: Literal["contrastive", "full", "lora"] = settings.mode if settings.mode in ("full", "lora") else "contrastive"
    contrastive = how == "contrastive"
    asked = chosen(own_settings(how, len(texts)), settings, seed=context.job.seed)
    if settings.mode == "auto":
        asked = replace(asked, mode="full")
    given = settings.augmentation.model_dump()
    augment = Augmenter(given, context.job.seed) if any(given.values()) else None
    more: dict[str, Any] = {"directory": context.directory / "tuned", "augment": augment, "report": context.report}
    tune = tune_contrastive if contrastive else tune_with_head
    try:
        directory: Path = tune(context.source, context.placement, texts, labels, asked, context.events, context.job.checkpoint, **more)
    except TrainingError as error:
        if settings.mode != "auto":
            raise
        say(context.events, f"no tuned encoder: {error.message}; the frozen one stays", "warn")
        return None
    return directory


def reopened(context: Context, directory: Path) -> Embedder:
    """An encoder from its directory, through the loader that serving uses."""
    source = locate(f"tuned={directory}")
    return Embedder(load(source, context.placement), context.cache, context.events)
