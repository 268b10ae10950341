"""Objects fitted to texts that a caller sends along (reference sets, label sets), kept by content."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Fitted(Protocol):
    """Something fitted, and how much of the cache it takes."""

    @property
    def size_bytes(self) -> int: ...


def content_key(version: str, content: object) -> str:
    """A key that is equal exactly when the model's version and the JSON content are."""
    return hashlib.sha256(f"{version}\n{json.dumps(content, sort_keys=True)}".encode()).hexdigest()


class FittedCache(Generic[T]):
    """The most recently used objects, bounded by the bytes their owners say they take. For the event loop's thread alone."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: str) -> T | None:
        """What was put under `key`, if it is still there."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: str, value: T, size_bytes: int) -> None:
        """Keep `value`, and forget the oldest if that is too much."""
        if size_bytes > self._max_bytes or key in self._entries:
            return
        self._entries[key] = (value, size_bytes)
        self.bytes += size_bytes
        while self.bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.bytes -= freed
