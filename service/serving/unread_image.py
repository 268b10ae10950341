"""An image that waits for a batch before it is decoded."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from models.images.pixels import Pixels
from service.engine.request import Unprepared

# Encoded images, or what gives them: base64 takes time, too.
Encoded = Callable[[], bytes]
# Bytes and their key to pixels.
ReadImage = Callable[[bytes, bytes], Pixels]


class UnreadImage(Unprepared):
    """An encoded image in the queue, which a runner reads.

    `seconds` are those of reading, once it is read. An image whose row is in the cache is never read.
    """

    __slots__ = ("_encoded", "_key", "_read", "count", "seconds")
    truncated = False

    def __init__(self, encoded: Encoded, read: ReadImage, count: int) -> None:
        self.count = count
        self.seconds = 0.0
        self._encoded = encoded
        self._read = read
        self._key = b""

    @property
    def key(self) -> bytes:
        """The key of its bytes. Raises InvalidRequest for base64 that is none."""
        self._key = self._key or file_key(self._encoded())
        return self._key

    def prepared(self) -> Pixels:
        """Its pixels. Raises ImageError, and InvalidRequest for base64 that is none."""
        began = time.perf_counter()
        pixels = self._read(self._encoded(), self.key)
        self.seconds = time.perf_counter() - began
        return pixels


def file_key(data: bytes) -> bytes:
    """The key of an image's bytes: equal files have equal pixels."""
    return b"file:%b" % hashlib.sha256(data).digest()
