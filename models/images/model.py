"""The interface of models that read images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.images.pixels import Pixels
from models.images.processor import ImageProcessor, load_processor
from models.metadata import Computable, ModelMetadata
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.device import inference_mode
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.layer_hooks import LayerHooks
from models.text.loaded_weights import require_weights
from models.text.tokenization import Tokens

# What one batch may hold: a model of texts and images computes both.
ImageItem = Pixels | Tokens


class DescribedImageModel(Computable, Protocol):
    """What a model in service needs of one that reads images, which may be in the engine process."""

    @property
    def images(self) -> ImageProcessor: ...


@runtime_checkable
class ImageModel(DescribedImageModel, Protocol):
    """A model from images to rows of float32."""

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """One float32 row [metadata.width] per item, in order. Calls `preempt` between its layers.

        Raises ModelOutOfMemory when the batch does not fit and DeviceLost when the device is gone.
        """
        ...


def image_metadata(source: ModelSource, placement: Placement, images: ImageProcessor, **fields: Any) -> ModelMetadata:
    """The metadata of a model of images: `fields`, and those of its source, placement and processor."""
    shape: dict[str, Any] = {"max_tokens": 0, "vocabulary": 0, "pads": False}
    return ModelMetadata(
        name=source.name,
        version=source.version,
        origin=source.origin,
        device=str(placement.device),
        dtype=placement.dtype_name,
        reason=placement.reason,
        image=images.signature,
        **(shape | fields),
    )


def load_network(source: ModelSource, path: Path, auto_class: str, placement: Placement) -> Any:
    """The network of a transformers directory, by one of its Auto classes, without a gradient.

    Raises ModelSourceError where weights are missing, those of a pooler excepted: its output is then not read.
    """
    import transformers

    kind = getattr(transformers, auto_class)
    with source.loading("a transformer"):
        network, found = kind.from_pretrained(
            path,
            use_safetensors=True,
            dtype=placement.dtype,
            output_loading_info=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    missing = found["missing_keys"]
    require_weights((key for key in missing if ".pooler." not in f".{key}"), source.name)
    network.has_pooler = not any(key.startswith("pooler.") for key in missing)
    return network.to(placement.device).eval().requires_grad_(False)


class ImageNetwork:
    """A network of transformers with its processor; a subclass sets the metadata and says what its rows are."""

    metadata: ModelMetadata

    def __init__(
        self, source: ModelSource, placement: Placement, auto_class: str, *parts: str, whole_size: bool = False
    ) -> None:
        """`parts` are those between whose layers others overtake, without any the whole network."""
        self._network = load_network(source, source.path, auto_class, placement)
        self._placement = placement
        self._layer_hooks = LayerHooks(*([getattr(self._network, name) for name in parts] or [self._network]))
        self.images = load_processor(source, source.path, whole_size=whole_size)

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Rows float32 [n, width], as the class describes them."""
        with inference_mode(self._placement.device), self._layer_hooks.calling(preempt):
            return compute_by_shape(batch, self.metadata.width, self._rows)

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()

    def _rows(self, images: Sequence[Pixels]) -> Tensor:
        """Rows [n, width] of images of one shape."""
        raise NotImplementedError

    def _to_tensor(self, images: Sequence[Pixels]) -> Tensor:
        return to_tensor(images, self.images, self._placement)


def to_tensor(batch: Sequence[Pixels], images: ImageProcessor, placement: Placement) -> Tensor:
    """What a network reads of images of one shape, [n, 3, h, w] on the device and in its dtype."""
    pixels = torch.from_numpy(np.stack([item.values for item in batch])).to(placement.device, non_blocking=True)
    return images.normalize(pixels, placement.dtype)


def by_shape(batch: Sequence[ImageItem]) -> dict[tuple[int, ...] | None, list[int]]:
    """The places of images by shape, and those of texts under None."""
    groups: dict[tuple[int, ...] | None, list[int]] = {}
    for index, item in enumerate(batch):
        groups.setdefault(item.values.shape if isinstance(item, Pixels) else None, []).append(index)
    return groups


def compute_by_shape(
    batch: Sequence[ImageItem], width: int, compute: Callable[[list[Pixels]], Tensor]
) -> NDArray[np.float32]:
    """Rows float32 [n, width] of a batch of images; `compute` gets those of one shape together."""
    rows = np.empty((len(batch), width), dtype=np.float32)
    for places in by_shape(batch).values():
        images = [item for place in places if isinstance(item := batch[place], Pixels)]
        rows[places] = compute(images).float().cpu().numpy()
    return rows
