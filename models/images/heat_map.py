"""Maps of where an image is strange, by the scores of its places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# The grey of a place that is as strange as the threshold; the strangest one is white.
_THRESHOLD_GREY = 128
# How much of an overlay is the map, and its colour.
_SHARE, _COLOUR = 0.6, (230, 0, 38)


def draw_map(places: NDArray[np.float32], threshold: float | None, width: int, height: int) -> Image.Image:
    """Scores of places [grid * grid] as a grey picture of a size; without a threshold, the strangest place is it."""
    grid = int(len(places) ** 0.5)
    scores = places.reshape(grid, grid)
    limit = float(scores.max()) if threshold is None else threshold
    beyond = max(float(scores.max()) - limit, 1e-6)
    grey = np.where(
        scores < limit,
        _THRESHOLD_GREY * scores / max(limit, 1e-6),
        _THRESHOLD_GREY + (255 - _THRESHOLD_GREY) * (scores - limit) / beyond,
    ).astype(np.uint8)
    return Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR)


def overlay_map(image: Image.Image, heat: Image.Image) -> Image.Image:
    """An image with its map in red: what is beyond the threshold shows, what is below it hardly does."""
    strength = heat.point(lambda grey: int(_SHARE * max(grey - _THRESHOLD_GREY // 2, 0)))
    return Image.composite(Image.new("RGB", image.size, _COLOUR), image, strength)
