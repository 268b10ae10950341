"""Versions that requests asked for by number and that are not the current ones."""

from __future__ import annotations

import threading
from collections import OrderedDict

from service.serving.fine_tuned import LiveVersion

_MAX_PINNED = 2


class PinnedVersions:
    """Up to two versions by label; the least recently used leaves first. Thread-safe."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, LiveVersion] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, label: str) -> LiveVersion | None:
        """The version with a label, which counts as used now."""
        with self._lock:
            if label in self._versions:
                self._versions.move_to_end(label)
            return self._versions.get(label)

    def add(self, version: LiveVersion) -> list[LiveVersion]:
        """Pin a version; return those that leave for it."""
        with self._lock:
            self._versions[version.label] = version
            return [self._versions.popitem(last=False)[1] for _ in range(len(self._versions) - _MAX_PINNED)]

    def remove(self, label: str) -> LiveVersion | None:
        """Unpin the version with a label, if there is one, and return it."""
        with self._lock:
            return self._versions.pop(label, None)

    def all(self) -> list[LiveVersion]:
        """All pinned versions."""
        with self._lock:
            return list(self._versions.values())
