"""Images to what a network reads: a transformers directory's own scaling and cropping, by Pillow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.errors import ModelSourceError
from models.images.pixels import Pixels
from models.images.reader import ImageLimits, read_image
from models.images.resizing import Scaling
from models.metadata import ImageSignature
from models.source import ModelSource
from models.text.packed.torchscript import as_written, script

log = logging.getLogger(__name__)

# The picture of the check at load, larger than most networks read and not square.
_PROBE_SIZE = (640, 480)
_TOLERANCE = 1e-4
# Pictures of these sizes are scaled as the processor does, within a few of 256 levels.
_COMPARED_SIZES = ((640, 480), (480, 640), (100, 70))
_MOST_LEVELS = 2
# A JPEG is decoded no smaller than this many times the side that the network reads.
_DRAFT = 2


class ImageProcessor:
    """The preprocessing of one model. Thread-safe, because it does not change after construction.

    Scaling and cropping happen here, on 8 bits; the network itself subtracts the mean and divides by the deviation.
    With `whole_size`, JPEGs are decoded in full, so that `Pixels.size` is the size of the image that was sent.
    """

    def __init__(self, processor: Any, name: str, *, whole_size: bool = False) -> None:
        self.processor = processor
        self._whole_size = whole_size
        mean, std, scale = _normalization(processor)
        self._factor = torch.tensor([scale / one for one in std]).view(3, 1, 1)
        self._offset = torch.tensor([part / one for part, one in zip(mean, std, strict=True)]).view(3, 1, 1)
        self._scaling: Scaling | None = None
        probe = probe_image(*_PROBE_SIZE)
        pixels = self.prepare(probe)
        self._require_same(pixels, probe, name)
        self.tokens = pixels.count
        height, width = pixels.values.shape[1:]
        turned = self.prepare(probe.transpose(Image.Transpose.ROTATE_90))
        self.signature = ImageSignature(
            height,
            width,
            tuple(map(float, mean)),
            tuple(map(float, std)),
            float(scale),
            varies=turned.values.shape != pixels.values.shape,
        )
        self._scaling = self._find_scaling()

    @property
    def side(self) -> int:
        """The shorter side of what the network reads, in pixels."""
        return min(self.signature.height, self.signature.width)

    @property
    def is_uniform(self) -> bool:
        """Whether the size of an image changes neither the cost of its pixels nor what is answered of them."""
        return not (self.signature.varies or self._whole_size)

    def read(self, data: bytes, limits: ImageLimits, param: str, key: bytes = b"") -> Pixels:
        """The pixels of an encoded image, with a key. Raises ImageError naming `param`."""
        side = None if self._whole_size else _DRAFT * max(self.signature.height, self.signature.width)
        return self.prepare(read_image(data, limits, param, side=side), key)

    def prepare(self, image: Image.Image, key: bytes = b"") -> Pixels:
        """The pixels of an RGB image."""
        values = self._scaling(image) if self._scaling is not None else None
        return Pixels(self._by_processor(image) if values is None else values, image.size, key=key)

    def normalize(self, values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Pixels uint8 [n, 3, h, w] → what the network reads, of that shape and a dtype."""
        with as_written():
            return _normalize(values, self._factor, self._offset, dtype)

    def _by_processor(self, image: Image.Image) -> NDArray[np.uint8]:
        more = {"include_top": False} if hasattr(self.processor, "include_top") else {}
        values = self.processor(image, do_rescale=False, do_normalize=False, **more)["pixel_values"][0]
        return np.ascontiguousarray(values, dtype=np.uint8)

    def _find_scaling(self) -> Scaling | None:
        """The faster way to scale, where it gives what the processor gives."""
        scaling = Scaling.of(self.processor)
        if scaling is None:
            return None
        for size in _COMPARED_SIZES:
            image = probe_image(*size)
            found, expected = scaling(image), self._by_processor(image)
            if found is not None and not _differ_little(found, expected):
                log.info("images are scaled by %s: PyTorch gives other values", type(self.processor).__name__)
                return None
        return scaling

    def _require_same(self, pixels: Pixels, probe: Image.Image, name: str) -> None:
        """Raise ModelSourceError for a processor that does more than scale, crop and normalize."""
        expected: NDArray[np.float32] = np.asarray(self.processor(probe)["pixel_values"][0])
        found = self.normalize(torch.from_numpy(pixels.values)[None])[0].numpy()
        if found.shape != expected.shape or not np.abs(found - expected).max() <= _TOLERANCE:
            kind = type(self.processor).__name__
            raise ModelSourceError(
                f"{name}: expected a processor that scales, crops and normalizes, got {kind}, which does more",
                param="model",
            )


def _normalization(processor: Any) -> tuple[Sequence[float], Sequence[float], float]:
    """Mean, deviation and scale of a processor: values are (pixel * scale - mean) / deviation.

    EfficientNet's may also subtract 1 (`rescale_offset`), and divide by the deviation once more (`include_top`).
    """
    mean = processor.image_mean if processor.do_normalize else (0.0, 0.0, 0.0)
    std = processor.image_std if processor.do_normalize else (1.0, 1.0, 1.0)
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    if processor.do_rescale and getattr(processor, "rescale_offset", False):
        mean = [one + 1.0 for one in mean]
    if getattr(processor, "include_top", False):
        std = [first * second for first, second in zip(std, processor.image_std, strict=True)]
    return mean, std, scale


@script
def _normalize(values: Tensor, factor: Tensor, offset: Tensor, dtype: torch.dtype) -> Tensor:
    """Computed in float32. One call for all steps, after each of which Python's lock would have to be won back."""
    return (values.float() * factor.to(values.device) - offset.to(values.device)).to(dtype)


def _differ_little(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> bool:
    levels = np.abs(found.astype(np.int16) - expected) if found.shape == expected.shape else None
    return levels is not None and int(levels.max()) <= _MOST_LEVELS


def load_processor(source: ModelSource, path: Path, *, whole_size: bool = False) -> ImageProcessor:
    """The image processor of a transformers directory. Raises ModelSourceError for one that Sonde cannot follow."""
    from transformers import AutoImageProcessor

    with source.loading("an image processor"):
        found = AutoImageProcessor.from_pretrained(path, backend="pil", trust_remote_code=False, local_files_only=True)
        return ImageProcessor(found, source.name, whole_size=whole_size)


def probe_image(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of smooth colours, for checks at load."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
