"""A cross-encoder with its gradients on: a query and a document as one input, one number out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
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
from models.text.model_config import longest_input
from models.text.tokenization import TextProcessor
from models.training.errors import TrainingError
from models.training.tuning.batches import Batch, Batches, TextReader
from models.training.tuning.lora import merge
from models.training.tuning.settings import TunerSettings
from models.training.tuning.trainable_encoder import ROWS_AT_ONCE_ON_CPU, frozen_words, with_lora

# Where a transformers model keeps what is neither embeddings nor layers; LoRA leaves it whole, and it must train.
_HEAD = ("classifier", "pooler", "score", "head", "pre_classifier")
_AT_ONCE = 64
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
PROBES = (("where is my card", "Cards arrive within five days."), ("a", "b"), ("x " * 30, "Ünïcödé, 漢字"))


class TrainableCrossEncoder(nn.Module):
    """`…ForSequenceClassification` with one output. A base that is a bi-encoder lends its transformer; the head
    starts fresh.
    """

    def __init__(self, source: ModelSource, placement: Placement, settings: TunerSettings) -> None:
        super().__init__()
        self.source, self.placement = source, placement
        torch.manual_seed(settings.seed)  # a fresh head starts random
        self.fresh, network, self.tokenizer, stated = _load(source)
        network.requires_grad_(True)
        self.adapted = settings.mode == "lora"
        self.network = network
        if self.adapted:
            with_lora(network, settings)
        for name, parameter in network.named_parameters():
            if any(part in _HEAD for part in name.split(".")):
                parameter.requires_grad_(True)
        if settings.freeze_embeddings:
            frozen_words(network)
        self.to(placement.device)
        self.reading = TextReader(
            TextProcessor(self.tokenizer.backend_tokenizer, longest_input(network.config.to_dict(), stated)),
            int(self.tokenizer.pad_token_id or 0),
            "token_type_ids" in self.tokenizer.model_input_names,
            rows_at_once=ROWS_AT_ONCE_ON_CPU if placement.device.type == "cpu" else 1_000_000,
            pairs=True,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits float32 [n] of the rows of a batch, in its order."""
        (parts,) = batch.columns
        logits = torch.cat([self.network(**part.features).logits[:, 0].float() for part in parts])
        return torch.empty_like(logits).index_copy(0, torch.cat([part.places for part in parts]), logits)

    def save(self, directory: Path) -> Path:
        """Merge adapters, write a directory that the loader serves as a reranker, and check that it gives the same
        logits.

        Raises TrainingError with code `saved_model_differs`.
        """
        self.eval()
        before = self._probe()
        if self.adapted:
            merge(self.network)
            self.adapted = False
        shutil.rmtree(directory, ignore_errors=True)
        self.network.save_pretrained(str(directory), safe_serialization=True)
        self.tokenizer.model_max_length = self.reading.text.max_tokens
        self.tokenizer.save_pretrained(str(directory))
        after = scores(load(locate(f"{self.source.name}={directory}"), self.placement), PROBES)
        if not np.abs(before - after).max() <= _TOLERANCE[self.placement.dtype_name]:
            raise TrainingError(
                "saved_model_differs",
                f"the saved cross-encoder gives {after.tolist()}, the trained one {before.tolist()}",
            )
        return directory

    def _probe(self) -> NDArray[np.float32]:
        columns = [list(column) for column in zip(*PROBES, strict=True)]
        batch = Batches(columns, None, [list(range(len(PROBES)))], self.reading)[0].to(self.placement.device)
        with torch.inference_mode():
            logits: NDArray[np.float32] = self(batch).cpu().numpy()
            return logits


def scores(model: TextModel, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """A served cross-encoder's logits [n] of query and document; inputs of like length are read together."""
    tokens = model.text.encode_pairs(pairs)
    rows = np.zeros(len(tokens), dtype=np.float32)
    order = sorted(range(len(tokens)), key=lambda index: tokens[index].count)
    for start in range(0, len(order), _AT_ONCE):
        part = order[start : start + _AT_ONCE]
        rows[part] = model.forward([tokens[index] for index in part])[:, 0]
    return rows


def is_cross_encoder(path: Path) -> bool:
    """Whether a model directory is a `…ForSequenceClassification` model."""
    config = path / "config.json"
    architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") if config.is_file() else None
    return any(str(name).endswith("ForSequenceClassification") for name in architectures or [])


def _load(source: ModelSource) -> tuple[bool, Any, Any, int | None]:
    """Whether the head is fresh, the network, its tokenizer, and the length it states."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = _transformer(source.path)
    fresh = not is_cross_encoder(place)
    with loading(source.name, "a transformer"):
        network = AutoModelForSequenceClassification.from_pretrained(
            place,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
            **({"num_labels": 1} if fresh else {}),
        )
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=True)
    if network.config.num_labels != 1:
        raise ModelSourceError(
            f"{source.name}: a classifier of {network.config.num_labels} labels cannot rerank", param="model"
        )
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelSourceError(f"{source.name}: its tokenizer has no fast form", param="model")
    stated = place / "sentence_bert_config.json"
    longest = json.loads(stated.read_text(encoding="utf-8")).get("max_seq_length") if stated.is_file() else None
    known = tokenizer.model_max_length if tokenizer.model_max_length < 1_000_000 else None
    return fresh, network, tokenizer, int(longest) if longest else known


def _transformer(path: Path) -> Path:
    """Where the transformer's files lie in a sentence-transformers directory."""
    modules = path / "modules.json"
    first = json.loads(modules.read_text(encoding="utf-8"))[0] if modules.is_file() else {}
    return path / str(first.get("path", ""))
