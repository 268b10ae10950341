"""An encoder that trains, whole or with adapters, and is saved for the loader."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.errors import ModelSourceError
from models.linalg import normalize
from models.loader import load
from models.runtime.placement import Placement
from models.source import ModelSource, locate
from models.text.encoder import open_pipeline
from models.text.model_config import longest_input, read_settings, stated_limit, transformer_path
from models.training.tuning.batches import Batches, TextReader
from models.training.tuning.freezing import add_adapters, freeze_lower_layers, freeze_word_embeddings
from models.training.tuning.lora import merge
from models.training.tuning.settings import TunerSettings
from models.training.tuning.tunable_encoder import TunableEncoder, require_same

# Texts whose embeddings in training and after loading must agree.
PROBES = ("a card", "Where is my order? It should have come on Monday.", "x " * 40, "Ünïcödé, 漢字 and 123")


class TrainableEncoder(TunableEncoder):
    """A sentence-transformers model that trains.

    BERT's pooler, which pooling never reads, is frozen: it gets no gradient.
    """

    reader: TextReader

    def __init__(self, source: ModelSource, placement: Placement, settings: TunerSettings) -> None:
        super().__init__()
        self.source, self.placement = source, placement
        self.pipeline = _open_float32(source, placement)
        self.adapted = settings.mode == "lora"
        self._choose_trainable(settings)
        pipeline, config = self.pipeline, self.pipeline[0].model.config
        settings_of_text = read_settings(transformer_path(source.path))
        self.reader = TextReader.of(
            pipeline.tokenizer,
            config,
            longest_input(config.to_dict(), stated_limit(settings_of_text, pipeline.max_seq_length)),
            placement.device,
            prompt=pipeline.prompts.get(pipeline.default_prompt_name or "", "") or "",
            excludes_prompt=any(getattr(module, "include_prompt", True) is False for module in pipeline),
        )

    def _choose_trainable(self, settings: TunerSettings) -> None:
        network = self.pipeline[0].model
        self.pipeline.requires_grad_(True)
        if self.adapted:
            add_adapters(network, settings)
        for name, parameter in network.named_parameters():
            if "pooler" in name.split("."):
                parameter.requires_grad_(False)
        if settings.freeze_embeddings:
            freeze_word_embeddings(network)
        if settings.frozen_layers and not self.adapted:
            freeze_lower_layers(network, settings.frozen_layers)

    @property
    def width(self) -> int:
        """See TunableEncoder."""
        return int(self.pipeline.get_embedding_dimension() or self.pipeline[0].config.hidden_size)

    def _embed(self, part: dict[str, Tensor], prompt_tokens: int) -> Tensor:
        features: dict[str, Any] = dict(part)
        if prompt_tokens:
            features["prompt_length"] = prompt_tokens
        features = self.pipeline[0](features)
        # Pooling runs in float32, as in serving.
        with torch.autocast(self.placement.device.type, enabled=False):
            features["token_embeddings"] = features["token_embeddings"].float()
            for module in list(self.pipeline)[1:]:
                features = module(features)
            return functional.normalize(features["sentence_embedding"], dim=-1)

    def save(self, directory: Path) -> Path:
        """Write a sentence-transformers directory; see TunableEncoder."""
        self.eval()
        before = self._probe()
        merge(self.pipeline[0].model)
        shutil.rmtree(directory, ignore_errors=True)
        self.pipeline.save_pretrained(str(directory), create_model_card=False, safe_serialization=True)
        model = load(locate(f"{self.source.name}={directory}"), self.placement)
        require_same(before, normalize(model.forward(self.reader([PROBES])[0])), self.placement)
        return directory

    def _probe(self) -> NDArray[np.float32]:
        """Embeddings of the probes, each alone, as they are served where a batch would change them."""
        batches = Batches([PROBES], None, [[row] for row in range(len(PROBES))], self.reader)
        device = self.placement.device
        with torch.inference_mode():
            rows = [self.columns(batches[step].to(device))[0].float().cpu().numpy() for step in range(len(batches))]
            return np.concatenate(rows)


def _open_float32(source: ModelSource, placement: Placement) -> Any:
    """A pipeline with weights in float32, in whatever dtype the forward pass runs."""
    pipeline = open_pipeline(source, placement.device, torch.float32)
    if not hasattr(pipeline[0], "model"):
        kind = type(pipeline[0]).__name__
        raise ModelSourceError(f"{source.name}: its first module is {kind}, expected a Transformer", param="model")
    return pipeline
