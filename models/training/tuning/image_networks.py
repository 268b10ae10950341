"""Networks of encoders of images as they train: what they compute, and how they are written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from models.filesystem import read_json
from models.images.efficientnet_lite import unfold
from models.images.encoder import body_vectors
from models.images.lite_encoder import WEIGHTS, load_lite
from models.images.model import load_network
from models.images.text_image_encoder import image_vectors
from models.kinds import image_kind, network_folder
from models.lite_weights import ARCHITECTURE
from models.runtime.placement import Placement
from models.source import ModelSource
from models.training.errors import TrainingError

# What belongs to a model beside its weights: settings, processor, tokenizer.
_KEPT = {".json", ".txt", ".model"}


@dataclass(frozen=True, slots=True)
class TrainableImageNetwork:
    """A network with its vectors [n, d] of images [n, 3, h, w]; `write` puts its weights into a directory."""

    module: nn.Module
    vectors: Callable[[Tensor], Tensor]
    write: Callable[[Path], None]


def open_network(source: ModelSource, placement: Placement) -> TrainableImageNetwork:
    """The network of an encoder of images, in the placement's dtype, without gradients so far.

    Raises ModelSourceError, and TrainingError with code `wrong_model` for what is no encoder of images.
    """
    if read_json(source.path / "config.json", dict).get("model_type") == ARCHITECTURE:
        lite = load_lite(source).to(placement.device, placement.dtype)
        return TrainableImageNetwork(lite, lite, lambda path: save_file(unfold(lite.state_dict()), path / WEIGHTS))
    kind, folder = image_kind(source.path), network_folder(source.path)
    vectors: dict[str, Callable[[Any, Tensor], Tensor]] = {"encoder": body_vectors, "text-image": image_vectors}
    if kind not in vectors:
        raise TrainingError("wrong_model", f"model: expected an encoder of images to tune, got a {kind}", "model")
    network, compute, inner = (
        load_network(source, folder, "AutoModel", placement),
        vectors[kind],
        folder.relative_to(source.path),
    )

    def write(path: Path) -> None:
        """Without a pooler that the source lacks: with one, other vectors would be served."""
        weights = {
            name: one
            for name, one in network.state_dict().items()
            if network.has_pooler or not name.startswith("pooler.")
        }
        network.save_pretrained(path / inner, state_dict=weights)

    return TrainableImageNetwork(network, lambda pixels: compute(network, pixels), write)


def write_network(network: TrainableImageNetwork, source: ModelSource, directory: Path) -> None:
    """Write a directory like the source's, with the network's weights."""
    shutil.rmtree(directory, ignore_errors=True)
    for file in source.path.rglob("*"):
        if file.suffix in _KEPT and not file.name.endswith(".index.json"):
            target = directory / file.relative_to(source.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    network.write(directory)
