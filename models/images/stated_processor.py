"""The image processor of a program, made of what its description states."""

from __future__ import annotations

from PIL.Image import Resampling

from models.images.processor import ImageProcessor
from models.programs.description import Preprocessing

_FILTERS = {"nearest": Resampling.NEAREST, "bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}


def stated_processor(stated: Preprocessing, name: str) -> ImageProcessor:
    """The processor that scales, crops and normalizes as is stated."""
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
    return ImageProcessor(found, name)
