"""Versions that have left service and whose engines run until no request holds them."""

from __future__ import annotations

import logging
import weakref
from typing import Any

from service.engine.row_engine import RowEngine
from service.serving.fine_tuned import LiveVersion

log = logging.getLogger(__name__)


class RetiredVersions:
    """Closes the engine of a retired version once the last request has let go of it."""

    def __init__(self) -> None:
        self._engines: list[tuple[weakref.ref[LiveVersion], RowEngine[Any], str]] = []

    def add(self, version: LiveVersion) -> None:
        """Retire a version. An engine that it shares stays open."""
        if version.owns_engine:
            self._engines.append((weakref.ref(version), version.engine, version.label))

    def close_unused(self) -> None:
        """Close the engines of versions that no request holds."""
        for entry in [entry for entry in self._engines if entry[0]() is None]:
            _, engine, label = entry
            self._engines.remove(entry)
            engine.close()
            log.info("model unloaded", extra={"model": label})

    def close_all(self) -> None:
        """Close all engines."""
        for _, engine, _ in self._engines:
            engine.close()
