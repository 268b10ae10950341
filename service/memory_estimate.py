"""The memory that server processes take, as known before they start."""

from __future__ import annotations

import logging

import psutil

from models.runtime.memory import usable_bytes
from models.source import weights_bytes
from service.config import Settings

log = logging.getLogger(__name__)

# What a server process with a tiny program shares with no other, measured in benchmarks/NOTES.md.
_PROCESS_BYTES = 24 * 10**6


def available_bytes() -> int:
    """The memory that new processes may take."""
    return min(int(psutil.virtual_memory().available), usable_bytes())


def warn_unless_they_fit(settings: Settings, available: int) -> None:
    """Log a warning where `--workers` processes, each with its own models, do not fit.

    The models count with the bytes of their files. Those of a GPU count nothing.
    """
    if settings.workers == 1 or settings.device in ("cuda", "mps"):
        return
    each = _PROCESS_BYTES + sum(map(weights_bytes, settings.model))
    if settings.workers * each > available:
        log.warning(
            "--workers %d: these processes need about %.1f GB of memory, and %.1f GB are available; take at most %d,"
            " or --fronts, which share one copy of the models",
            *(settings.workers, settings.workers * each / 1e9, available / 1e9, max(available // each, 1)),
        )
