"""Encoders of texts and images in one space: CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.errors import ModelSourceError
from models.images.model import ImageItem, by_shape, image_metadata, load_network, to_tensor
from models.images.pixels import Pixels
from models.images.processor import load_processor
from models.kinds import network_folder
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.device import inference_mode
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.layer_hooks import LayerHooks
from models.text.padding import Padding
from models.text.tokenization import TextProcessor, Tokens

# Trained with texts that are padded to their longest, and with padding that is read as text.
_FULL_LENGTH = {"siglip"}


class TextImageEncoder:
    """A directory of transformers or sentence-transformers with a text and a vision tower.

    Vectors of both can be compared.
    """

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        from transformers import AutoTokenizer

        folder = network_folder(source.path)
        self._network = load_network(source, folder, "AutoModel", placement)
        self._placement = placement
        self._layer_hooks = LayerHooks(self._network.text_model, self._network.vision_model)
        self.images = load_processor(source, folder)
        with source.loading("a tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise ModelSourceError(f"{source.name}: its tokenizer has no fast form", param="model")
        config = self._network.config
        limit = int(config.text_config.max_position_embeddings)
        self.padding = Padding(tokenizer, config)
        self.text = TextProcessor(tokenizer.backend_tokenizer, limit)
        self._full_length = limit if config.model_type in _FULL_LENGTH else 0
        self.metadata = image_metadata(
            source,
            placement,
            self.images,
            task="embedding",
            architecture=str(config.model_type),
            width=self._text_vectors(self.text.encode(["a"])).shape[1],
            max_tokens=limit,
            vocabulary=self.text.vocabulary,
            pads=True,
            zero_shot=(float(self._network.logit_scale.exp()), float(getattr(self._network, "logit_bias", 0.0))),
        )

    def forward(self, batch: Sequence[ImageItem], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Vectors float32 [n, width] of texts and images, not normalized."""
        rows = np.empty((len(batch), self.metadata.width), dtype=np.float32)
        with self._layer_hooks.calling(preempt):
            for shape, places in by_shape(batch).items():
                part = [batch[place] for place in places]
                vectors = self._text_vectors(part) if shape is None else self._image_vectors(part)
                rows[places] = vectors.float().cpu().numpy()
        return rows

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()

    def _text_vectors(self, batch: Sequence[ImageItem]) -> Tensor:
        texts = [item for item in batch if isinstance(item, Tokens)]
        with inference_mode(self._placement.device):
            features = self.padding.collate(texts, self._placement.device, at_least=self._full_length)
            if self._full_length:
                del features["attention_mask"]
            vectors: Tensor = self._network.get_text_features(**features).pooler_output
            return vectors

    def _image_vectors(self, batch: Sequence[ImageItem]) -> Tensor:
        images = [item for item in batch if isinstance(item, Pixels)]
        with inference_mode(self._placement.device):
            return image_vectors(self._network, to_tensor(images, self.images, self._placement))


def image_vectors(network: Any, pixels: Tensor) -> Tensor:
    """Vectors [n, width] of a network of texts and images for images [n, 3, h, w]."""
    vectors: Tensor = network.get_image_features(pixel_values=pixels).pooler_output
    return vectors
