"""Images as frames to the engine, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.images.pixels import Pixels
from service.engine.frames import SubmitImages, header
from service.engine.request import Request


def image_submission(model: str, request: Request, items: Sequence[Pixels], *, more: bool = False) -> SubmitImages:
    """The frame that submits images of a request to the engine's `model`."""
    shapes = np.array([item.values.shape[1:] for item in items], np.int32)
    return SubmitImages(
        *header(model, request, more=more),
        b"".join(item.values.data for item in items),
        shapes[:, 0].tobytes(),
        shapes[:, 1].tobytes(),
        np.array([item.steps for item in items], np.int32).tobytes(),
    )


def images_of(frame: SubmitImages) -> list[Pixels]:
    """The images of a submission. Raises ValueError where its parts do not fit each other."""
    heights, widths, steps = (np.frombuffer(part, np.int32) for part in (frame.heights, frame.widths, frame.steps))
    if not len(heights) == len(widths) == len(steps) > 0 or (heights < 1).any() or (widths < 1).any():
        raise ValueError(f"{len(heights)} heights, {len(widths)} widths and {len(steps)} steps of images")
    sizes = 3 * heights.astype(np.int64) * widths
    if sizes.sum() != len(frame.pixels):
        raise ValueError(f"images of {sizes.sum()} bytes in {len(frame.pixels)}")
    values: NDArray[np.uint8] = np.frombuffer(frame.pixels, np.uint8)
    images, start = [], 0
    for height, width, written, size in zip(heights, widths, steps, sizes, strict=True):
        images.append(Pixels(values[start : start + size].reshape(3, height, width), steps=int(written)))
        start += size
    return images
