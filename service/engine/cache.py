"""Caches bounded in bytes: rows by item, and objects fitted to texts of a request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

KeyT = TypeVar("KeyT")
T = TypeVar("T")
ItemKey = bytes
# Bytes of an entry beside its key and row: the dictionary's slot, object headers, the linked list.
_OVERHEAD_BYTES = 300


class Sized(Protocol):
    """A fitted object and the bytes that it takes in the cache."""

    @property
    def size_bytes(self) -> int: ...


class LruCache(Generic[KeyT, T]):
    """Values of a bounded total size; the least recently used leave first. Not thread-safe.

    `OrderedDict` takes a third of the time of `cachetools.LRUCache` for a hit.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[KeyT, tuple[T, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: KeyT) -> T | None:
        """The value of `key`, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: KeyT, value: T, size_bytes: int) -> None:
        """Keep a value, unless `key` has one or it is too large; drop the oldest for room."""
        if size_bytes > self._max_bytes or key in self._entries:
            return
        self._entries[key] = (value, size_bytes)
        self.bytes += size_bytes
        while self.bytes > self._max_bytes:
            self.bytes -= self._entries.popitem(last=False)[1][1]

    def __len__(self) -> int:
        return len(self._entries)


class RowCache:
    """Rows by model version and item, thread-safe. Versions never share rows.

    A size of 0 turns it off.
    """

    def __init__(self, max_bytes: int) -> None:
        self.on = max_bytes > 0
        self._rows: LruCache[tuple[str, bytes], NDArray[np.float32]] = LruCache(max_bytes)
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        return self._rows.bytes

    def get_many(self, version: str, keys: list[ItemKey]) -> list[NDArray[np.float32] | None]:
        """The row of each key, or None where there is none."""
        with self._lock:
            get = self._rows.get
            return [get((version, key)) for key in keys]

    def put(self, version: str, key: ItemKey, row: NDArray[np.float32]) -> None:
        """Keep a copy of a row."""
        if self.on:
            size = len(key) + row.nbytes + _OVERHEAD_BYTES
            with self._lock:
                self._rows.put((version, key), row.copy(), size)

    def __len__(self) -> int:
        return len(self._rows)


def content_key(version: str, content: object) -> str:
    """A key that is equal exactly when the model's version and the JSON content are."""
    return hashlib.sha256(f"{version}\n{json.dumps(content, sort_keys=True)}".encode()).hexdigest()
