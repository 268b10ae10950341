"""An encoder of images that trains, whole, in its last layers or with adapters, and is saved for the loader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from models.images.pixels import Pixels
from models.images.processor import load_processor, probe_image
from models.kinds import network_folder
from models.linalg import normalize
from models.loader import load_images
from models.runtime.placement import Placement
from models.source import ModelSource, locate
from models.training.errors import TrainingError
from models.training.images.embeddings import ImageSource
from models.training.tuning.freezing import add_adapters, freeze_up_to
from models.training.tuning.image_batches import PIXELS, ImageBatchReader
from models.training.tuning.image_networks import open_network, write_network
from models.training.tuning.lora import merge
from models.training.tuning.settings import TunerSettings
from models.training.tuning.tunable_encoder import TunableEncoder, require_same

_PROBES = 4


class TrainableImageEncoder(TunableEncoder):
    """An encoder of images that trains on those of a source.

    Batch normalization keeps its means and deviations, which small batches would spoil. Parameters that no vector
    depends on (a text tower, a layer of labels) are frozen.
    """

    reader: ImageBatchReader

    def __init__(
        self, source: ModelSource, placement: Placement, settings: TunerSettings, *, images: ImageSource
    ) -> None:
        super().__init__()
        self.source, self.placement, self.reader = source, placement, ImageBatchReader(images)
        self._processor = load_processor(source, network_folder(source.path))
        self._opened = open_network(source, placement.in_float32("it trains"))
        self.network = self._opened.module
        self.adapted = settings.mode == "lora"
        self._choose_trainable(settings)

    @property
    def width(self) -> int:
        """See TunableEncoder."""
        return self._width

    def train(self, mode: bool = True) -> TrainableImageEncoder:
        """Switch to training, batch normalization excepted."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def save(self, directory: Path) -> Path:
        """Write a directory like the source's; see TunableEncoder."""
        self.eval()
        before = self._probe()
        merge(self.network)
        write_network(self._opened, self.source, directory)
        model = load_images(locate(f"{self.source.name}={directory}"), self.placement)
        if model is None:
            raise TrainingError("saved_model_differs", "the saved encoder reads no images")
        require_same(before, normalize(model.forward(self._probe_images())), self.placement)
        return directory

    def _choose_trainable(self, settings: TunerSettings) -> None:
        self.network.requires_grad_(True)
        if self.adapted:
            add_adapters(self.network, settings)
        self._freeze_unread()
        if settings.frozen_layers and not self.adapted:
            freeze_up_to(self.network, settings.frozen_layers)

    def _freeze_unread(self) -> None:
        """Freeze the parameters without a gradient: no vector depends on them."""
        self.eval()
        vectors = self._embed(self._probe_features(), 0)
        self._width = vectors.shape[1]
        vectors[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        for parameter in self.network.parameters():
            if parameter.grad is None:
                parameter.requires_grad_(False)
            parameter.grad = None

    def _embed(self, part: dict[str, Tensor], prompt_tokens: int) -> Tensor:
        pixels = self._processor.normalize(part[PIXELS])
        return functional.normalize(self._opened.vectors(pixels).float(), dim=-1)

    def _probe(self) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self._embed(self._probe_features(), 0).cpu().numpy()

    def _probe_features(self) -> dict[str, Tensor]:
        values = torch.from_numpy(np.stack([image.values for image in self._probe_images()]))
        return {PIXELS: values.to(self.placement.device)}

    def _probe_images(self) -> list[Pixels]:
        """Pictures whose embeddings in training and after loading must agree."""
        return [self._processor.prepare(probe_image(320, 240, seed)) for seed in range(_PROBES)]
