"""Defects that are drawn into good images, to measure which ones a detector sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.images.pixels import Pixels

DefectKind = Literal["spot", "scratch"]
KINDS: tuple[DefectKind, ...] = get_args(DefectKind)
# Shares of an image's side.
SIZES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)
# A kind and size counts as seen where nine of ten copies are anomalies.
FOUND = 0.9
MOST_COPIES = 20
_SHADE = 0.4
_SCRATCH_WIDTH = 0.15

Values = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Defect:
    """A kind of defect, and its size as a share of the image's side."""

    kind: DefectKind
    size: float


DEFECTS = tuple(Defect(kind, size) for kind in KINDS for size in SIZES)


def draw_defect(values: Values, defect: Defect, seed: int) -> Pixels:
    """A copy of an image uint8 [3, h, w] with a defect at a random place.

    A spot is darker than the image, in dark images brighter; a scratch is a line of that shade.
    """
    chance, changed = np.random.default_rng(seed), values.copy()
    height, width = values.shape[1:]
    side = max(int(defect.size * min(height, width)), 2)
    top, left = (int(chance.integers(0, length - side + 1)) for length in (height, width))
    field = changed[:, top : top + side, left : left + side]
    mask = _mask(defect.kind, side, chance)
    shade = _SHADE * field if values.mean() > 100 else 255 - _SHADE * (255 - field)
    field[:, mask] = shade.astype(np.uint8)[:, mask]
    return Pixels(changed)


def _mask(kind: DefectKind, side: int, chance: np.random.Generator) -> NDArray[np.bool_]:
    """The places [side, side] of a disc, or of a line through the middle."""
    y, x = (np.indices((side, side)) - (side - 1) / 2) / max(side / 2, 1)
    if kind == "spot":
        disc: NDArray[np.bool_] = x**2 + y**2 <= 1
        return disc
    angle = chance.uniform(0, np.pi)
    line: NDArray[np.bool_] = np.abs(x * np.sin(angle) - y * np.cos(angle)) <= max(_SCRATCH_WIDTH, 1.5 / side)
    return line
