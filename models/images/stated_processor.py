"""The image processor of a program, made of what its description states."""

from __future__ import annotations

from functools import lru_cache

from PIL.Image import Resampling

from models.errors import ModelSourceError
from models.images.processor import ImageProcessor
from models.programs.description import Preprocessing

_FILTERS = {"nearest": Resampling.NEAREST, "bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}


@lru_cache(16)  # made at load, where it is checked, and again for the service
def stated_processor(stated: Preprocessing) -> ImageProcessor:
    """The processor that scales, crops and normalizes as is stated. Raises ModelSourceError where it cannot."""
    from transformers import CLIPImageProcessorPil  # seconds and 150 MB, which servers of texts do without

    size = {"height": stated.height, "width": stated.width}
    crops = stated.resize == "crop"
    found = CLIPImageProcessorPil(
        do_convert_rgb=False,
        size={"shortest_edge": stated.cropped_from} if crops else size,
        do_center_crop=crops,
        crop_size=size,
        resample=_FILTERS[stated.interpolation],
        rescale_factor=stated.scale,
        image_mean=list(stated.mean),
        image_std=list(stated.std),
    )
    try:
        return ImageProcessor(found, "preprocess")
    except (ModelSourceError, ArithmeticError, RuntimeError, ValueError) as error:
        expected = "expected scale, mean and std by which float32 computes (value * scale - mean) / std to 0.0001"
        got = f"scale {stated.scale:g}, mean {list(stated.mean)} and std {list(stated.std)}"
        raise ModelSourceError(f"preprocess: {expected}, got {got}", param="model") from error


def require_preprocessing(stated: Preprocessing | None, name: str) -> None:
    """Raise ModelSourceError, which names the file, for what no processor can do."""
    if stated is not None:
        try:
            stated_processor(stated)
        except ModelSourceError as error:
            raise ModelSourceError(f"{name}: {error.message}", param="model") from error
