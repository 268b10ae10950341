"""Images that are ready for a network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pixels that cost as much as a token: a patch of most vision transformers.
_PIXELS_PER_TOKEN = 256


@dataclass(frozen=True, slots=True)
class Pixels:
    """One image, cut and scaled for a model: uint8 [3, height, width], red first, before mean and deviation.

    `size` are width and height of the image that was scaled, if it was. `steps` are the tokens that a model may write.
    Equal images have equal keys; without one, it is made of the pixels.
    """

    values: NDArray[np.uint8]
    size: tuple[int, int] = (0, 0)
    steps: int = 0
    key: bytes = b""

    def __post_init__(self) -> None:
        if self.size == (0, 0):
            object.__setattr__(self, "size", self.values.shape[:0:-1])
        if not self.key:
            digest = hashlib.blake2b(self.values.tobytes(), digest_size=16, person=b"image").digest()
            object.__setattr__(self, "key", b"image:%d:%b" % (self.values.shape[-1], digest))

    @property
    def count(self) -> int:
        """The cost in tokens."""
        height, width = map(int, self.values.shape[1:])
        return -(-height * width // _PIXELS_PER_TOKEN) + self.steps

    @property
    def truncated(self) -> bool:
        """Never: an image is scaled."""
        return False


def to_picture(values: NDArray[np.uint8]) -> Image.Image:
    """Pixels uint8 [3, height, width] as an image of Pillow."""
    return Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))
