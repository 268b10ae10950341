"""The decoded images of a job, scaled for its encoder, in one file: each is decoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.images.pixels import Pixels, to_picture

_COLOUR_GRID = 8


class ImageStore:
    """Images by key. A key is the hash of an encoded image, so that equal images have equal keys.

    Processes that load batches get copies, which read the same file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._end = 0
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._names: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._file = os.open(self._path, os.O_RDONLY)

    def add(self, key: str, name: str, pixels: Pixels) -> None:
        """Keep an image under its key; `name` is that in its file. A copy of one is not kept twice."""
        if key in self._places:
            return
        data = pixels.values.tobytes()
        if os.pwrite(self._file, data, self._end) != len(data):
            raise OSError("an image was written in part")
        self._places[key] = (self._end, pixels.values.shape)
        self._names[key] = name
        self._end += len(data)

    @property
    def settings(self) -> tuple[object, ...]:
        """What the pixels depend on beside their keys: nothing."""
        return ()

    def name(self, key: str) -> str:
        """The name of an image in its file."""
        return self._names[key]

    def values(self, key: str) -> NDArray[np.uint8]:
        """The pixels of an image, uint8 [3, h, w]."""
        start, shape = self._places[key]
        data = os.pread(self._file, int(np.prod(shape)), start)
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)

    def pixels(self, key: str) -> Pixels:
        """An image as a network reads it."""
        return Pixels(self.values(key))

    def colours(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """The mean colours of the fields of an 8 x 8 grid, float32 [n, 192], for a baseline."""
        rows = np.empty((len(keys), 3 * _COLOUR_GRID**2), dtype=np.float32)
        for row, key in enumerate(keys):
            rows[row] = _grid_means(self.values(key)).ravel() / 255
        return rows

    def picture(self, key: str) -> Image.Image:
        """An image as the network reads it, for people."""
        return to_picture(self.values(key))

    def close(self) -> None:
        """Close the file, which the job's directory keeps."""
        os.close(self._file)


def _grid_means(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The means of the fields of an 8 x 8 grid, float32 [3, 8, 8], which share pixels where 8 divides no side."""
    means = pixels.astype(np.float32)
    for axis in (1, 2):
        size, fields = means.shape[axis], np.arange(_COLOUR_GRID)
        starts, ends = fields * size // _COLOUR_GRID, -(-(fields + 1) * size // _COLOUR_GRID)
        parts = [means.take(range(start, end), axis).mean(axis) for start, end in zip(starts, ends, strict=True)]
        means = np.stack(parts, axis)
    return means
