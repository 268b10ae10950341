"""A cross-encoder that trains: a query and a document as one input, one logit out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import ModelSourceError
from models.loader import load
from models.runtime.placement import Placement
from models.source import ModelSource, locate
from models.text.model import TextModel
from models.text.model_config import transformer_path
from models.text.sequence_classifier import is_sequence_classifier, load_classifier
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
        path = transformer_path(source.path)
        self.fresh = not is_sequence_classifier(path)
        self.network, self.tokenizer, max_tokens = load_classifier(source, path, torch.float32, fresh=self.fresh)
        if (labels := self.network.config.num_labels) != 1:
            raise ModelSourceError(f"{source.name}: a classifier of {labels} labels cannot rerank", param="model")
        self.adapted = settings.mode == "lora"
        self._choose_trainable(settings)
        self.to(placement.device)
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
        merge(self.network)
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
