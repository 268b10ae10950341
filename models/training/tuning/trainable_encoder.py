"""A model with its gradients on: loaded from a source, adapted or whole, and saved as a directory that the loader
reads.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.errors import ModelSourceError
from models.linalg import normalize
from models.loader import load
from models.runtime.placement import Placement
from models.source import ModelSource, locate
from models.text.encoder import open_pipeline
from models.text.model_config import longest_input
from models.text.tokenization import TextProcessor
from models.training.errors import TrainingError
from models.training.hyperparameters import PARAM
from models.training.tuning.batches import Batch, Batches, PaddedTexts, TextReader
from models.training.tuning.lora import add_lora, merge
from models.training.tuning.settings import TunerSettings

# Texts whose vectors in training and after loading must agree.
PROBES = ("a card", "Where is my order? It should have come on Monday.", "x " * 40, "Ünïcödé, 漢字 and 123")
_LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.995}
ROWS_AT_ONCE_ON_CPU = 16


class TrainableEncoder(nn.Module):
    """A sentence-transformers model that trains: features in, embeddings float32 [n, d] of length 1 out, as serving
    gives them.

    What pooling never reads (BERT's pooler) is frozen, since it would have no gradient. Weights are float32 on any
    device.
    """

    def __init__(self, source: ModelSource, placement: Placement, settings: TunerSettings) -> None:
        super().__init__()
        pipeline = _pipeline(source, placement)
        self.pipeline = pipeline
        self.source, self.placement = source, placement
        tokenizer, network = pipeline.tokenizer, pipeline[0].model
        self.adapted = settings.mode == "lora"
        pipeline.requires_grad_(True)
        if self.adapted:
            with_lora(network, settings)
        for name, parameter in network.named_parameters():
            if "pooler" in name.split("."):
                parameter.requires_grad_(False)
        if settings.freeze_embeddings:
            frozen_words(network)
        if settings.frozen_layers and not self.adapted:
            only_upper(network, settings.frozen_layers)
        prompt = pipeline.prompts.get(pipeline.default_prompt_name or "", "")
        self.reading = TextReader(
            TextProcessor(
                tokenizer.backend_tokenizer, longest_input(network.config.to_dict(), pipeline.max_seq_length)
            ),
            int(tokenizer.pad_token_id or 0),
            "token_type_ids" in tokenizer.model_input_names,
            rows_at_once=ROWS_AT_ONCE_ON_CPU if placement.device.type == "cpu" else 1_000_000,
            prompt=prompt or "",
            excludes_prompt=any(getattr(module, "include_prompt", True) is False for module in pipeline),
        )

    @property
    def width(self) -> int:
        """Dimensions of the embedding."""
        return int(self.pipeline.get_embedding_dimension() or self.pipeline[0].config.hidden_size)

    def forward(self, parts: Sequence[PaddedTexts], prompt_tokens: int = 0) -> Tensor:
        """Embeddings of one text column, in its order."""
        rows = torch.cat([self._embedded(part.features, prompt_tokens) for part in parts])
        return torch.empty_like(rows).index_copy(0, torch.cat([part.places for part in parts]), rows)

    def _embedded(self, part: dict[str, Tensor], prompt_tokens: int) -> Tensor:
        features: dict[str, Any] = dict(part)
        if prompt_tokens:
            features["prompt_length"] = prompt_tokens
        features = self.pipeline[0](features)
        # Pooling in float32, as in serving.
        with torch.autocast(self.placement.device.type, enabled=False):
            features["token_embeddings"] = features["token_embeddings"].float()
            for module in list(self.pipeline)[1:]:
                features = module(features)
            return functional.normalize(features["sentence_embedding"], dim=-1)

    def columns(self, batch: Batch) -> list[Tensor]:
        """Embeddings [n, d] of each column of a batch."""
        return [self(column, batch.prompt_tokens) for column in batch.columns]

    def save(self, directory: Path) -> Path:
        """Merge adapters, write a sentence-transformers directory (safetensors only) and check that it gives the
        same vectors.

        Raises TrainingError with code `saved_model_differs`. The model is of no more use for training afterwards.
        """
        self.eval()
        before = self._probe()
        if self.adapted:
            merge(self.pipeline[0].model)
            self.adapted = False
        shutil.rmtree(directory, ignore_errors=True)
        self.pipeline.save_pretrained(str(directory), create_model_card=False, safe_serialization=True)
        model = load(locate(f"{self.source.name}={directory}"), self.placement)
        require_same(before, normalize(model.forward(self.reading([PROBES])[0])), self.placement)
        return directory

    def _probe(self) -> NDArray[np.float32]:
        probes = _batch(self.reading, [PROBES], self.placement)
        with torch.inference_mode():
            rows: NDArray[np.float32] = self.columns(probes)[0].float().cpu().numpy()
            return rows


def require_same(before: NDArray[np.float32], after: NDArray[np.float32], placement: Placement) -> None:
    """Raise TrainingError unless rows [n, d] of length 1 agree to the precision of the placement."""
    least = float((before * after).sum(axis=1).min())
    if not least >= _LEAST_COSINE[placement.dtype_name]:
        raise TrainingError(
            "saved_model_differs",
            f"the saved encoder gives other vectors than the trained one: least cosine {least:.5f}",
        )


def _batch(reading: TextReader, columns: Sequence[Sequence[str]], placement: Placement) -> Batch:
    rows = list(range(len(columns[0])))
    return Batches(columns, None, [rows], reading)[0].to(placement.device)


def with_lora(network: nn.Module, settings: TunerSettings) -> None:
    """Give a network the adapters that the settings ask for and freeze all else."""
    torch.manual_seed(settings.seed)  # A starts random
    add_lora(
        network,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        layers=settings.lora_layers,
    )


def frozen_words(network: Any) -> None:
    """Freeze the word vectors of a transformers model."""
    network.get_input_embeddings().requires_grad_(False)


def only_upper(network: Any, frozen: float) -> None:
    """Freeze all of a transformers model but the layers above the lowest share `frozen` of them.

    Raises TrainingError with code `no_layers` for a model that has no list of layers.
    """
    count = network.config.num_hidden_layers
    stack = next(
        (module for module in network.modules() if isinstance(module, nn.ModuleList) and len(module) == count), None
    )
    if stack is None:
        raise TrainingError(
            "no_layers", f"{type(network).__name__} has no list of {count} layers to freeze a part of", f"{PARAM}.mode"
        )
    network.requires_grad_(False)
    for layer in stack[min(round(frozen * count), count - 1) :]:
        layer.requires_grad_(True)


def _pipeline(source: ModelSource, placement: Placement) -> Any:
    """Weights in float32, whatever the forward pass runs in."""
    pipeline = open_pipeline(source, placement.device, torch.float32)
    if not hasattr(pipeline[0], "model"):
        raise ModelSourceError(
            f"{source.name}: its first module is {type(pipeline[0]).__name__}, expected a Transformer", param="model"
        )
    return pipeline
