"""A cross-encoder that trains: a query and a document as one input, one logit out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import ModelSourceError
from models.loader import load
from models.runtime.inference import loading
from models.runtime.placement import Placement
from models.source import ModelSource, locate
from models.text.base import TextModel
from models.text.model_config import longest_input, read_settings, stated_limit, transformer_path
from models.training.errors import TrainingError
from models.training.tuning.batches import Batch, Batches, TextReader, restore_order
from models.training.tuning.freezing import add_adapters, freeze_word_embeddings
from models.training.tuning.lora import HEADS, merge
from models.training.tuning.settings import TunerSettings

# Query and document pairs whose logits in training and after loading must agree.
PROBES = (("where is my card", "Cards arrive within five days."), ("a", "b"), ("x " * 30, "Ünïcödé, 漢字"))
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
_BATCH_PAIRS = 64


class TrainableCrossEncoder(nn.Module):
    """`…ForSequenceClassification` with one output; a bi-encoder gets a fresh head."""

    def __init__(self, source: ModelSource, placement: Placement, settings: TunerSettings) -> None:
        super().__init__()
        self.source, self.placement = source, placement
        torch.manual_seed(settings.seed)  # a fresh head starts random
        loaded = _load(source)
        self.fresh, self.network, self.tokenizer = loaded.fresh, loaded.network, loaded.tokenizer
        self.adapted = settings.mode == "lora"
        self._choose_trainable(settings)
        self.to(placement.device)
        max_tokens = longest_input(self.network.config.to_dict(), loaded.max_tokens)
        self.reader = TextReader.of(self.tokenizer, self.network.config, max_tokens, placement.device, pairs=True)

    def _choose_trainable(self, settings: TunerSettings) -> None:
        self.network.requires_grad_(True)
        if self.adapted:
            add_adapters(self.network, settings)
        # LoRA gives heads no adapters, so they train as they are.
        for name, parameter in self.network.named_parameters():
            if any(part in HEADS for part in name.split(".")):
                parameter.requires_grad_(True)
        if settings.freeze_embeddings:
            freeze_word_embeddings(self.network)

    def forward(self, batch: Batch) -> Tensor:
        """Logits float32 [n] of the rows of a batch, in its order."""
        (parts,) = batch.columns
        return restore_order(parts, [self.network(**part.features).logits[:, 0].float() for part in parts])

    def save(self, directory: Path) -> Path:
        """Merge adapters, write a directory for the loader, and check its logits.

        Raises TrainingError with code `saved_model_differs`.
        """
        self.eval()
        before = self._probe()
        if self.adapted:
            merge(self.network)
            self.adapted = False
        shutil.rmtree(directory, ignore_errors=True)
        self.network.save_pretrained(str(directory), safe_serialization=True)
        self.tokenizer.model_max_length = self.reader.text.max_tokens
        self.tokenizer.save_pretrained(str(directory))
        after = score_pairs(load(locate(f"{self.source.name}={directory}"), self.placement), PROBES)
        if not np.abs(before - after).max() <= _TOLERANCE[self.placement.dtype_name]:
            message = f"the saved cross-encoder gives {after.tolist()}, the trained one {before.tolist()}"
            raise TrainingError("saved_model_differs", message)
        return directory

    def _probe(self) -> NDArray[np.float32]:
        """Logits of the probes, each alone, as they are served where a batch would change them."""
        columns = [list(column) for column in zip(*PROBES, strict=True)]
        batches = Batches(columns, None, [[row] for row in range(len(PROBES))], self.reader)
        with torch.inference_mode():
            logits = [self(batches[step].to(self.placement.device)).cpu().numpy() for step in range(len(batches))]
            return np.concatenate(logits)


def score_pairs(model: TextModel, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """A served cross-encoder's logits [n] of query and document, in batches of similar length."""
    tokens = model.text.encode_pairs(pairs)
    rows = np.zeros(len(tokens), dtype=np.float32)
    order = sorted(range(len(tokens)), key=lambda index: tokens[index].count)
    for start in range(0, len(order), _BATCH_PAIRS):
        part = order[start : start + _BATCH_PAIRS]
        rows[part] = model.forward([tokens[index] for index in part])[:, 0]
    return rows


def is_cross_encoder(path: Path) -> bool:
    """Whether a model directory is a `…ForSequenceClassification` model."""
    architectures = _read_json(path / "config.json").get("architectures")
    return any(str(name).endswith("ForSequenceClassification") for name in architectures or [])


@dataclass(frozen=True, slots=True)
class _LoadedNetwork:
    """A network, its tokenizer and its stated limit; `fresh`: the head is new."""

    fresh: bool
    network: Any
    tokenizer: Any
    max_tokens: int | None


def _load(source: ModelSource) -> _LoadedNetwork:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = transformer_path(source.path)
    fresh = not is_cross_encoder(path)
    head: dict[str, Any] = {"num_labels": 1} if fresh else {}
    offline: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    with loading(source.name, "a transformer"):
        network = AutoModelForSequenceClassification.from_pretrained(
            path, use_safetensors=True, dtype=torch.float32, **offline, **head
        )
        tokenizer = AutoTokenizer.from_pretrained(path, **offline)
    labels = network.config.num_labels
    if labels != 1:
        raise ModelSourceError(f"{source.name}: a classifier of {labels} labels cannot rerank", param="model")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelSourceError(f"{source.name}: its tokenizer has no fast form", param="model")
    return _LoadedNetwork(fresh, network, tokenizer, stated_limit(read_settings(path), tokenizer.model_max_length))


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty without the file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
