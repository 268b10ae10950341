"""Caches, bounded in bytes: rows by what they were computed from, and objects fitted to texts that a caller sends
along.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

# What one entry costs beside its key and row: the dict's slot, the two object headers, the linked list.
_OVERHEAD_BYTES = 300


class RowCache:
    """Thread-safe. A size of 0 turns it off. Keys carry the model's version, so a new model never meets old rows."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rows: OrderedDict[tuple[str, bytes], NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    @property
    def on(self) -> bool:
        """Whether it can have a row at all."""
        return self._max_bytes > 0

    def get_many(self, version: str, keys: list[bytes]) -> list[NDArray[np.float32] | None]:
        """The row of each key, or None where there is none."""
        with self._lock:
            return [self._touch((version, key)) for key in keys]

    def put(self, version: str, key: bytes, row: NDArray[np.float32]) -> None:
        """Remember a copy of a row, and forget the oldest ones if that is too much."""
        cost = len(key) + row.nbytes + _OVERHEAD_BYTES
        if cost > self._max_bytes:
            return
        with self._lock:
            if (version, key) in self._rows:
                return
            self._rows[version, key] = row.copy()
            self.bytes += cost
            while self.bytes > self._max_bytes:
                (_, old_key), old = self._rows.popitem(last=False)
                self.bytes -= len(old_key) + old.nbytes + _OVERHEAD_BYTES

    def __len__(self) -> int:
        return len(self._rows)

    def _touch(self, key: tuple[str, bytes]) -> NDArray[np.float32] | None:
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row


T = TypeVar("T")


class Sized(Protocol):
    """Something fitted, and how much of the cache it takes."""

    @property
    def size_bytes(self) -> int: ...


def content_key(version: str, content: object) -> str:
    """A key that is equal exactly when the model's version and the JSON content are."""
    return hashlib.sha256(f"{version}\n{json.dumps(content, sort_keys=True)}".encode()).hexdigest()


class FittedCache(Generic[T]):
    """The most recently used objects, bounded by the bytes their owners say they take. For the event loop's thread
    alone.
    """

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
