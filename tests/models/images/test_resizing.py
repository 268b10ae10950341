"""Scaling by PyTorch: what Pillow's processors give, but for a level of 256 in few places."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from models.images.processor import ImageProcessor
from models.images.resizing import Scaling
from tests.support.images import picture

# The last one is so large that Pillow keeps it in two blocks of memory.
SIZES = ((640, 480), (480, 640), (1000, 300), (224, 224), (90, 60), pytest.param((2500, 2000), marks=pytest.mark.slow))
PROCESSORS = {
    "vit": ViTImageProcessorPil(),
    "vit, bicubic": ViTImageProcessorPil(resample=3, size={"height": 224, "width": 160}),
    "clip": CLIPImageProcessorPil(),
    "clip, odd": CLIPImageProcessorPil(size={"shortest_edge": 97}, crop_size={"height": 60, "width": 91}),
    "deit": DeiTImageProcessorPil(),
}
OTHERS = {
    "lanczos": ViTImageProcessorPil(resample=1),
    "padded": DetrImageProcessorPil(),
    "bounded": DetrImageProcessorPil(do_pad=False),
    "not scaled": ViTImageProcessorPil(do_resize=False),
}


@cache
def noisy(width: int, height: int) -> Image.Image:
    chance = np.random.default_rng(0)
    values = np.asarray(picture(width, height), dtype=np.int16) + chance.integers(-40, 41, (height, width, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
def test_values_are_those_of_the_processor(name: str, size: tuple[int, int]) -> None:
    scaling, processor = Scaling.of(PROCESSORS[name]), PROCESSORS[name]
    assert scaling is not None
    image = noisy(*size)
    expected = processor(image, do_rescale=False, do_normalize=False)["pixel_values"][0]
    found = scaling(image)
    assert found is not None
    assert found.shape == expected.shape
    assert found.flags.c_contiguous
    levels = np.abs(found.astype(np.int16) - expected)
    assert levels.max() <= 2
    assert levels.mean() < 0.01


def test_a_crop_larger_than_the_scaled_image_is_left_to_the_processor() -> None:
    """transformers then adds black edges."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 60, "width": 60})
    scaling = Scaling.of(processor)
    assert scaling is not None
    assert scaling(picture(50, 50)) is None
    pixels = ImageProcessor(processor, "m").prepare(picture(50, 50))
    assert pixels.values.shape == (3, 60, 60)
    assert not pixels.values[:, 0].any()


@pytest.mark.parametrize("name", OTHERS)
def test_other_settings_are_left_to_the_processor(name: str) -> None:
    assert Scaling.of(OTHERS[name]) is None


def test_a_processor_that_gives_other_values_scales_itself() -> None:
    """ConvNeXt's scales to a larger side than its settings say, and cuts out the middle."""
    processor = ConvNextImageProcessorPil(size={"shortest_edge": 224})
    assert Scaling.of(processor) is not None
    image = picture(300, 200)
    expected = processor(image, do_rescale=False, do_normalize=False)["pixel_values"][0]
    np.testing.assert_array_equal(ImageProcessor(processor, "convnext").prepare(image).values, expected)


def test_images_are_scaled_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' Python and Pillow take ten times as long."""
    images = ImageProcessor(ViTImageProcessorPil(), "vit")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the processor was called")

    monkeypatch.setattr(images, "processor", refuse)
    assert images.prepare(picture(300, 200)).values.shape == (3, 224, 224)
    assert torch.from_numpy(images.prepare(picture(300, 200)).values).is_contiguous()
