"""Changed copies of images: reproducible, of the same size, and changed as the settings say."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.images.pixels import Pixels
from models.training.augmentation_options import ImageAugmentation
from models.training.images.augmentation import AugmentedImages, ImageAugmenter, view_keys
from models.training.images.store import ImageStore
from tests.support.images import picture

NOTHING: dict[str, Any] = {"flip": "none", "crop": 0, "rotate": 0, "brightness": 0, "blur": 0}
Values = NDArray[np.uint8]


def values(width: int = 48, height: int = 32) -> Values:
    return np.ascontiguousarray(np.asarray(picture(width, height)).transpose(2, 0, 1))


def copies(image: Values, count: int = 12, seed: int = 7, **settings: Any) -> list[Values]:
    """Copies of an image with these settings alone."""
    augment = ImageAugmenter(ImageAugmentation(**(NOTHING | settings)), seed)
    return [augment(image, f"key/{number}") for number in range(count)]


def difference(one: Values, other: Values) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_copies_have_the_images_size_and_depend_on_name_and_seed_alone() -> None:
    first, again = (copies(values(), flip="horizontal", crop=0.2, rotate=20, brightness=0.3, blur=1) for _ in range(2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert {(one.shape, one.dtype.name) for one in first} == {((3, 32, 48), "uint8")}
    assert len({one.tobytes() for one in first}) == len(first)
    other = copies(values(), seed=8, flip="horizontal", crop=0.2, rotate=20, brightness=0.3, blur=1)
    assert not np.array_equal(first[0], other[0])


def test_without_any_change_a_copy_is_the_image() -> None:
    assert all(np.array_equal(one, values()) for one in copies(values()))


@pytest.mark.parametrize(
    ("flip", "axes"), [("none", [()]), ("horizontal", [(), (2,)]), ("both", [(), (2,), (1,), (1, 2)])]
)
def test_flips_mirror_along_the_axes_asked_for(flip: str, axes: list[tuple[int, ...]]) -> None:
    mirrored = {np.flip(values(), axis).tobytes() for axis in axes}
    assert {one.tobytes() for one in copies(values(), 40, flip=flip)} == mirrored


def test_turning_keeps_a_disc_round_in_an_image_that_is_not_square() -> None:
    image = Image.new("RGB", (96, 64))
    ImageDraw.Draw(image).ellipse((38, 22, 57, 41), fill=(255, 255, 255))
    disc = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    assert max(difference(one, disc) for one in copies(disc, rotate=180)) < 3
    assert min(difference(one, values()) for one in copies(values(), 4, rotate=90)) > 3


def test_brightness_is_bounded_both_ways() -> None:
    means = [one.mean() / 100 for one in copies(np.full((3, 8, 8), 100, np.uint8), 40, brightness=0.3)]
    assert 0.69 <= min(means) < 0.8
    assert 1.2 < max(means) <= 1.31


def test_a_crop_enlarges_and_a_blur_smooths() -> None:
    stripes = np.ascontiguousarray(np.tile(np.arange(64) % 8 // 4 * 255, (3, 64, 1)).astype(np.uint8))
    assert min(one.std() for one in copies(stripes, blur=4)) < 0.5 * stripes.std()
    edges = np.abs(np.diff(stripes[0, 0].astype(int))).sum() / 255
    cropped = [np.abs(np.diff((one[0, 32] > 127).astype(int))).sum() for one in copies(stripes, crop=0.5)]
    assert min(cropped) < 0.75 * edges
    assert max(cropped) <= edges + 1


def test_views_are_read_by_their_keys(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    store.add("key", "a.png", Pixels(values()))
    images = AugmentedImages(store, ImageAugmenter(ImageAugmentation(), 7))
    assert view_keys(["a", "b"], range(2)) == ["a/0", "b/0", "a/1", "b/1"]
    assert np.array_equal(images.pixels("key").values, values())
    assert not np.array_equal(images.pixels("key/0").values, images.pixels("key/1").values)
    assert images.picture("key").size == (96, 64)
    copy = pickle.loads(pickle.dumps(images))
    assert np.array_equal(copy.pixels("key/1").values, images.pixels("key/1").values), "as other processes read them"
    assert images.settings != AugmentedImages(store, ImageAugmenter(ImageAugmentation(crop=0.3), 7)).settings
    store.close()
