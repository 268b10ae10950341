"""A sentence-transformers directory as an encoder: tokens in, one vector a text out."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import ModelSourceError
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.device import inference_mode
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.layer_hooks import LayerHooks
from models.text.loaded_weights import require_encoder_weights
from models.text.model import text_metadata
from models.text.model_config import input_limits, longest_input, read_settings, stated_limit, transformer_path
from models.text.padding import Padding
from models.text.tokenization import TextProcessor, Tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)


class Encoder:
    """Any sentence-transformers text model: transformer, pooling, Dense.

    Without final normalization.

    The transformer runs in the placement's dtype, pooling and what follows in float32: averaging hundreds of vectors in
    bfloat16 would lose more precision than all layers before.
    """

    def __init__(self, source: ModelSource, placement: Placement, forward: str = "general") -> None:
        pipeline, notes = _load(source, placement)
        modules: list[Any] = list(pipeline)
        self._placement = placement
        self._transformer = modules[0]
        normalizes = bool(modules) and type(modules[-1]).__name__ == "Normalize"
        self._layer_hooks = LayerHooks(self._transformer)
        self._after = [module.float() for module in (modules[1:-1] if normalizes else modules[1:])]
        tokenizer = pipeline.tokenizer
        config = self._transformer.config
        settings = read_settings(transformer_path(source.path))
        self.padding = Padding(tokenizer, config)
        limit = longest_input(config.to_dict(), stated_limit(settings, pipeline.max_seq_length))
        self.text = TextProcessor(tokenizer.backend_tokenizer, limit)
        self.metadata = text_metadata(
            source,
            placement,
            self.text,
            task="embedding",
            architecture=str(config.model_type),
            width=int(pipeline.get_embedding_dimension() or config.hidden_size),
            prompts=dict(pipeline.prompts),
            default_prompt=pipeline.default_prompt_name,
            input_limits=input_limits(settings),
            excludes_prompt=any(getattr(module, "include_prompt", True) is False for module in self._after),
            normalizes=normalizes,
            forward=forward,
            notes=notes,
        )

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Vectors float32 [n, width], as the model makes them before any final normalization."""
        rows = np.empty((len(batch), self.metadata.width), dtype=np.float32)
        for prompt_tokens, indices in _by_prompt(batch).items():
            with self._layer_hooks.calling(preempt):
                part = self._vectors([batch[i] for i in indices], prompt_tokens)
            rows[indices] = part.float().cpu().numpy()
        return rows

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()

    def _vectors(self, batch: list[Tokens], prompt_tokens: int) -> Tensor:
        with inference_mode(self._placement.device):
            features: dict[str, Any] = dict(self.padding.collate(batch, self._placement.device))
            if prompt_tokens:
                features["prompt_length"] = prompt_tokens
            features = self._transformer(features)
            features["token_embeddings"] = features["token_embeddings"].float()
            for module in self._after:
                features = module(features)
            vectors: Tensor = features["sentence_embedding"]
            return vectors


def _by_prompt(batch: Sequence[Tokens]) -> dict[int, list[int]]:
    """Indices by prompt length, because pooling without prompts takes one length for a batch."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(batch):
        groups[item.prompt_tokens].append(index)
    return groups


def open_pipeline(source: ModelSource, device: torch.device, dtype: torch.dtype) -> SentenceTransformer:
    """Open a sentence-transformers directory: safetensors only, no code of the model's.

    Raises ModelSourceError for anything else, and when the first module is no transformer.
    """
    from sentence_transformers import SentenceTransformer

    with source.loading("a sentence-transformers model"):
        pipeline = SentenceTransformer(
            str(source.path),
            device=str(device),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": dtype},
        )
    if not hasattr(pipeline[0], "config"):
        raise ModelSourceError(
            f"{source.name}: its first module is {type(pipeline[0]).__name__}, expected a Transformer", param="model"
        )
    require_encoder_weights(pipeline[0].auto_model, transformer_path(source.path), source)
    return pipeline


def _load(source: ModelSource, placement: Placement) -> tuple[SentenceTransformer, tuple[str, ...]]:
    pipeline = open_pipeline(source, placement.device, placement.dtype)
    pipeline.eval().requires_grad_(False)
    if (source.path / "modules.json").is_file():
        return pipeline, ()
    note = "no modules.json: mean pooling assumed"
    log.warning("model %s: %s", source.name, note)
    return pipeline, (note,)
