"""Scaling and cropping as transformers' Pillow processors do, by PyTorch's kernels for 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.dlpack import from_dlpack

_MODES: dict[int, Literal["bilinear", "bicubic"]] = {
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}


@dataclass(frozen=True, slots=True)
class Scaling:
    """A size, or that of the `shortest` side, and the size of the middle that is cut out, each height and width.

    PyTorch takes a fifth of Pillow's time, and reads Pillow's memory. Values differ by one of 256 levels in some of a
    thousand places.
    """

    size: tuple[int, int] | None
    shortest: int
    crop: tuple[int, int] | None
    mode: Literal["bilinear", "bicubic"]

    @classmethod
    def of(cls, processor: Any) -> Scaling | None:
        """What a processor's settings say; None where they say something else or more."""
        size, mode = processor.size, _MODES.get(processor.resample)
        crop = processor.crop_size if getattr(processor, "do_center_crop", None) else None
        if not processor.do_resize or mode is None or getattr(processor, "do_pad", None):
            return None
        if size.longest_edge or (not (size.height and size.width) and not size.shortest_edge):
            return None
        return cls(
            (size.height, size.width) if size.height else None,
            size.shortest_edge or 0,
            (crop.height, crop.width) if crop else None,
            mode,
        )

    def __call__(self, image: Image.Image) -> NDArray[np.uint8] | None:
        """The values uint8 [3, height, width] of an RGB image; None for one that is smaller than the crop."""
        height, width = self.size or self._by_shortest(image.height, image.width)
        crop = self.crop or (height, width)
        if height < crop[0] or width < crop[1]:
            return None
        values = _shared_with(image).permute(2, 0, 1)[None]
        scaled = functional.interpolate(values, (height, width), mode=self.mode, antialias=True)[0, :3].numpy()
        top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
        return np.ascontiguousarray(scaled[:, top : top + crop[0], left : left + crop[1]])

    def _by_shortest(self, height: int, width: int) -> tuple[int, int]:
        if height <= width:
            return self.shortest, int(self.shortest * width / height)
        return int(self.shortest * height / width), self.shortest


def _shared_with(image: Image.Image) -> Tensor:
    """The values uint8 [height, width, 4] of an RGB image, the fourth unused; a copy [height, width, 3] of a large one.

    Pillow keeps four bytes a pixel, and images of more than 16 MB in several blocks, which have no view.
    """
    import pyarrow as pa

    try:
        values = pa.array(image).values
    except ValueError:
        return torch.from_numpy(np.array(image))
    return from_dlpack(values).view(image.height, image.width, 4)
