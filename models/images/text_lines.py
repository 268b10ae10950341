"""Lines of text in an image, by how much ink its rows and columns have (Nagy, Seth, 1984: recursive XY cuts)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageError

MOST_LINES = 200
# Of the difference between the background and what differs most from it.
_INK_SHARE = 0.4
_LEAST_CONTRAST = 24
# Pixels; lower ones are rules and dirt.
_LEAST_HEIGHT = 5
_STRIPS = 16
# In heights of a line: a gap between rows that is within a line (as below the dot of an i), one between columns that
# does not end a line, and what is kept around it.
_ROW_GAP, _COLUMN_GAP, _MARGIN = 0.2, 1.6, 0.15
# Shares of a line's pixels that are ink: a picture or a frame has more.
_MOST_INK = 0.9
_DEEPEST = 6
Ink = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an image in pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.right, self.bottom


def find_lines(image: Image.Image, param: str) -> list[Box]:
    """The lines of a page that is not turned, from top to bottom, and from left to right where they are side by side.

    Text may be dark or light on a plain background. Raises ImageError for more than MOST_LINES, naming `param`.
    """
    ink = _find_ink(np.asarray(image.convert("L")))
    page = Box(0, 0, image.width, image.height)
    found = [box for box in _cut(ink, page, _usual_height(ink)) if _is_text(ink, box)]
    if len(found) > MOST_LINES:
        remedy = "cut the image, or say that it is one line"
        raise ImageError(
            f"{param}: expected at most {MOST_LINES} lines of text, got {len(found)}; {remedy}", param=param
        )
    return [_widen(box, image) for box in found]


def _find_ink(grey: NDArray[np.uint8]) -> Ink:
    """What differs from the background, which is the most frequent grey."""
    background = int(np.bincount(grey.ravel(), minlength=256).argmax())
    difference = np.abs(grey.astype(np.int16) - background)
    strongest = int(np.percentile(difference, 99.9)) if difference.size else 0
    if strongest < _LEAST_CONTRAST:
        strongest = int(difference.max(initial=0))
    ink: Ink = difference > max(_INK_SHARE * strongest, _LEAST_CONTRAST)
    return ink


def _cut(ink: Ink, box: Box, size: float, depth: int = _DEEPEST) -> list[Box]:
    """Cut a box into rows, each of those where a wide gap is, and the parts into rows again.

    `size` is the usual height of a line.
    """
    lines: list[Box] = []
    for top, bottom in _join(_runs(ink[box.top : box.bottom, box.left : box.right], 1), _ROW_GAP * size):
        band = ink[box.top + top : box.top + bottom, box.left : box.right]
        columns = _join(_runs(band, 0), _COLUMN_GAP * size)
        parts = [Box(box.left + left, box.top + top, box.left + right, box.top + bottom) for left, right in columns]
        again = len(parts) > 1 and depth > 0
        lines += [line for part in parts for line in (_cut(ink, part, size, depth - 1) if again else [part])]
    return lines


def _runs(ink: Ink, axis: int) -> list[tuple[int, int]]:
    """Begin and end of each run of rows (`axis` 1) or columns (`axis` 0) with ink."""
    edges = np.flatnonzero(np.diff(np.any(ink, axis=axis).astype(np.int8), prepend=0, append=0))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _join(runs: list[tuple[int, int]], gap: float) -> list[tuple[int, int]]:
    """Runs, of which those with at most `gap` places between them are one."""
    joined: list[tuple[int, int]] = []
    for begin, end in runs:
        if joined and begin - joined[-1][1] <= gap:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((begin, end))
    return joined


def _usual_height(ink: Ink) -> float:
    """The median height of what is high enough for a line, in strips that are narrower than a column of text."""
    strips = np.array_split(ink, _STRIPS, axis=1)
    heights = [end - begin for strip in strips for begin, end in _runs(strip, 1)]
    return float(np.median([height for height in heights if height >= _LEAST_HEIGHT] or [_LEAST_HEIGHT]))


def _is_text(ink: Ink, box: Box) -> bool:
    part = ink[box.top : box.bottom, box.left : box.right]
    return box.bottom - box.top >= _LEAST_HEIGHT and float(part.mean()) < _MOST_INK


def _widen(box: Box, image: Image.Image) -> Box:
    margin = round(_MARGIN * (box.bottom - box.top)) + 1
    return Box(
        max(box.left - margin, 0),
        max(box.top - margin, 0),
        min(box.right + margin, image.width),
        min(box.bottom + margin, image.height),
    )
