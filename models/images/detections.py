"""Objects found in images, as rows of an engine: score, label and corners of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.metadata import OBJECT_NUMBERS

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DetectedObjects:
    """The objects of one image, best first: scores float32 [k], labels int64 [k] and boxes float32 [k, 4].

    A box is left, top, right and bottom in pixels.
    """

    scores: Rows
    labels: NDArray[np.int64]
    boxes: Rows

    @classmethod
    def of_row(
        cls, row: Rows, size: tuple[int, int], *, threshold: float = -1.0, most: int | None = None
    ) -> DetectedObjects:
        """The objects of a row [k * 6] with a score above `threshold`; `size` are the image's width and height."""
        found = row.reshape(-1, OBJECT_NUMBERS)
        best = np.argsort(-found[:, 0], kind="stable")
        kept = found[best][: int((found[:, 0] > threshold).sum())][:most]
        return cls(kept[:, 0], kept[:, 1].astype(np.int64), kept[:, 2:] * np.array(size * 2, np.float32))


def summarize(rows: Rows, labels: int) -> Rows:
    """What rows [n, k * 6] say whatever the order of their objects: float32 [n, labels + 4].

    Each label's sum of scores, and the sum of boxes by score.
    """
    found = rows.reshape(len(rows), -1, OBJECT_NUMBERS)
    scores = found[:, :, :1]
    of_labels = (found[:, :, 1:2] == np.arange(labels)) * scores
    summary: Rows = np.concatenate([of_labels, scores * found[:, :, 2:]], axis=2).sum(axis=1, dtype=np.float32)
    return summary
