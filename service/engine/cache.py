"""Recent rows by what they were computed from: bounded in bytes, least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict

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
