"""Changed copies of training images: flipped, cropped, turned, brighter or darker, and blurred."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch.nn import functional

from models.images.pixels import Pixels, to_picture
from models.training.augmentation_options import ImageAugmentation
from models.training.images.store import ImageStore

Values = NDArray[np.uint8]


class ImageAugmenter:
    """Changes images at random; the same settings, seed and name give the same change."""

    def __init__(self, settings: ImageAugmentation, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def __call__(self, values: Values, name: str) -> Values:
        """A changed copy of an image uint8 [3, h, w], of the same size."""
        digest = hashlib.blake2b(f"{self.seed}\n{name}".encode(), digest_size=8).digest()
        chance, settings = np.random.default_rng(int.from_bytes(digest, "big")), self.settings
        moved = _move(torch.from_numpy(values.copy()).float(), self._transform(chance, *values.shape[1:]))
        light = 1 + chance.uniform(-settings.brightness, settings.brightness)
        changed: Values = (moved * light).round().clamp(0, 255).byte().numpy()
        return _blur(changed, chance.uniform(0, settings.blur))

    def _transform(self, chance: np.random.Generator, height: int, width: int) -> torch.Tensor:
        """The affine map [2, 3] from places of the copy to those of the image, both from -1 to 1 on either axis."""
        settings = self.settings
        kept = 1 - chance.uniform(0, settings.crop)
        right, down = chance.uniform(kept - 1, 1 - kept, 2)
        angle = math.radians(chance.uniform(-settings.rotate, settings.rotate))
        mirrored = chance.integers(0, 2, 2) * 2 - 1
        across = mirrored[0] if settings.flip != "none" else 1
        along = mirrored[1] if settings.flip == "both" else 1
        cosine, sine, ratio = kept * math.cos(angle), kept * math.sin(angle), height / width
        rows = [[cosine * across, -sine * ratio * along, right], [sine / ratio * across, cosine * along, down]]
        return torch.tensor(rows, dtype=torch.float32)


class AugmentedImages:
    """The images of a store with their views: `key/3` is the third changed copy of the image `key`."""

    def __init__(self, store: ImageStore, augmenter: ImageAugmenter) -> None:
        self._store, self._augmenter = store, augmenter

    @property
    def settings(self) -> tuple[object, ...]:
        """What the views depend on, beside the images."""
        return (self._augmenter.settings.model_dump(exclude={"use", "views"}), self._augmenter.seed)

    def pixels(self, key: str) -> Pixels:
        """An image or one of its views, as a network reads it."""
        image, slash, _ = key.partition("/")
        values = self._store.values(image)
        return Pixels(self._augmenter(values, key) if slash else values)

    def picture(self, key: str) -> Image.Image:
        """An image at the upper left, and three of its views."""
        shown = [self.pixels(name).values for name in (key, *view_keys([key], range(3)))]
        rows = [np.concatenate(shown[at : at + 2], axis=2) for at in (0, 2)]
        return to_picture(np.concatenate(rows, axis=1))


def view_keys(keys: Sequence[str], views: range) -> list[str]:
    """The keys of views of images: the first view of each, then the second, and so on."""
    return [f"{key}/{view}" for view in views for key in keys]


def _move(image: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    """An image [3, h, w] seen through an affine map; what lies outside is mirrored."""
    grid = functional.affine_grid(transform[None], [1, *image.shape], align_corners=False)
    return functional.grid_sample(image[None], grid, padding_mode="reflection", align_corners=False)[0]


def _blur(values: Values, radius: float) -> Values:
    """An image uint8 [3, h, w] blurred by a Gaussian of a radius in pixels."""
    blurred = to_picture(values).filter(ImageFilter.GaussianBlur(radius))
    return np.ascontiguousarray(np.asarray(blurred).transpose(2, 0, 1))
