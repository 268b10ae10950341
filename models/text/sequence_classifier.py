"""Transformers with a classification head: cross-encoders and sequence classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.base import ModelMetadata
from models.errors import ModelSourceError
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.inference import inference_mode, loading
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.base import text_metadata
from models.text.layer_hooks import LayerHooks
from models.text.model_config import longest_input, read_settings, stated_limit
from models.text.padding import Padding
from models.text.tokenization import TextProcessor
from models.text.tokens import Tokens


class SequenceClassifier:
    """A `…ForSequenceClassification` model: a cross-encoder with one output, else a classifier.

    Rows are logits, float32 [n, labels]; `probabilities` and `relevance` map them to values between 0 and 1.
    """

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        self._model, tokenizer = _load(source, placement)
        self._placement = placement
        self._layer_hooks = LayerHooks(self._model)
        config = self._model.config
        labels = tuple(config.id2label[i] for i in range(config.num_labels))
        self.padding = Padding(tokenizer, config)
        self._text = TextProcessor(
            tokenizer.backend_tokenizer,
            longest_input(config.to_dict(), stated_limit(read_settings(source.path), tokenizer.model_max_length)),
        )
        self._metadata = text_metadata(
            source,
            placement,
            self._text,
            task="rerank" if len(labels) == 1 else "classification",
            architecture=str(config.model_type),
            width=len(labels),
            labels=labels if len(labels) > 1 else (),
            multi_label=config.problem_type == "multi_label_classification",
        )

    @property
    def metadata(self) -> ModelMetadata:
        return self._metadata

    @property
    def text(self) -> TextProcessor:
        return self._text

    def describe(self, **fields: Any) -> None:
        """Record in the metadata what was found at load."""
        self._metadata = replace(self._metadata, **fields)

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Logits float32 [n, labels]."""
        with inference_mode(self._placement), self._layer_hooks.calling(preempt):
            features = self.padding.collate(batch, self._placement.device)
            logits: NDArray[np.float32] = self._model(**features).logits.float().cpu().numpy()
            return logits

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()


def probabilities(logits: NDArray[np.float32], *, multi_label: bool) -> NDArray[np.float32]:
    """Logits [n, labels] → probabilities: each label by itself, or all summing to 1."""
    tensor = torch.from_numpy(logits)
    return (tensor.sigmoid() if multi_label else tensor.softmax(dim=-1)).numpy()


def relevance(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """A cross-encoder's logits [n, 1] → relevance [n] between 0 and 1."""
    return torch.from_numpy(logits[:, 0]).sigmoid().numpy()


def _load(source: ModelSource, placement: Placement) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with loading(source.name, "a sequence classifier"):
        model = AutoModelForSequenceClassification.from_pretrained(
            source.path, use_safetensors=True, trust_remote_code=False, local_files_only=True, dtype=placement.dtype
        )
        tokenizer = AutoTokenizer.from_pretrained(source.path, trust_remote_code=False, local_files_only=True)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelSourceError(f"{source.name}: its tokenizer has no fast form", param="model")
    return model.to(placement.device).eval().requires_grad_(False), tokenizer
