"""Transformers with a classification head: cross-encoders and sequence classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.errors import ModelSourceError
from models.filesystem import read_json
from models.kinds import is_classifier
from models.preemption import NO_PREEMPTION, Preemption
from models.probabilities import probabilities
from models.runtime.device import inference_mode
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.layer_hooks import LayerHooks
from models.text.loaded_weights import require_weights
from models.text.model import text_metadata
from models.text.model_config import longest_input, read_settings, stated_limit
from models.text.padding import Padding
from models.text.tokenization import TextProcessor, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class SequenceClassifier:
    """A `…ForSequenceClassification` model: a cross-encoder with one output, else a classifier.

    Rows are logits, float32 [n, labels]; `probabilities` and `relevance` map them to values between 0 and 1.
    """

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        network, tokenizer, max_tokens = load_classifier(source, source.path, placement.dtype)
        self._model = network.to(placement.device).eval().requires_grad_(False)
        self._placement = placement
        self._layer_hooks = LayerHooks(self._model)
        config = self._model.config
        labels = tuple(config.id2label[i] for i in range(config.num_labels))
        self.padding = Padding(tokenizer, config)
        self.text = TextProcessor(tokenizer.backend_tokenizer, max_tokens)
        self.metadata = text_metadata(
            source,
            placement,
            self.text,
            task="rerank" if len(labels) == 1 else "classification",
            architecture=str(config.model_type),
            width=len(labels),
            labels=labels if len(labels) > 1 else (),
            multi_label=config.problem_type == "multi_label_classification",
        )

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Logits float32 [n, labels]."""
        with inference_mode(self._placement.device), self._layer_hooks.calling(preempt):
            features = self.padding.collate(batch, self._placement.device)
            logits: NDArray[np.float32] = self._model(**features).logits.float().cpu().numpy()
            return logits

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()


def relevance(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """A cross-encoder's logits [n, 1] → relevance [n] between 0 and 1."""
    return probabilities(logits[:, :1])[:, 0]


def load_classifier(
    source: ModelSource, path: Path, dtype: torch.dtype, *, fresh: bool = False
) -> tuple[Any, PreTrainedTokenizerFast, int]:
    """The network and tokenizer in a directory of a source, and the most tokens that it reads.

    With `fresh`, an encoder gets a new head with one output. Raises ModelSourceError for anything else, and for a
    tokenizer without a fast form.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    head: dict[str, Any] = {"num_labels": 1} if fresh else {}
    offline: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    with source.loading("a transformer"):
        model, found = AutoModelForSequenceClassification.from_pretrained(
            path, use_safetensors=True, dtype=dtype, output_loading_info=True, **offline, **head
        )
        require_weights(_missing(model, found["missing_keys"], fresh=fresh), source.name)
        tokenizer = AutoTokenizer.from_pretrained(path, **offline)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelSourceError(f"{source.name}: its tokenizer has no fast form", param="model")
    limit = stated_limit(read_settings(path), tokenizer.model_max_length)
    return model, tokenizer, longest_input(model.config.to_dict(), limit)


def is_sequence_classifier(path: Path) -> bool:
    """Whether a model directory is a `…ForSequenceClassification` model."""
    return is_classifier(read_json(path / "config.json", dict))


def _missing(network: Any, keys: set[str], *, fresh: bool) -> list[str]:
    """The missing weights that are not trained anew: of a fresh head, those of the encoder below it."""
    body = f"{network.base_model_prefix}."
    return [key for key in keys if not fresh or (key.startswith(body) and ".pooler." not in key)]
