"""The check at load that a text's row does not depend on the texts beside it in a batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelOutOfMemory, ModelSourceError, SondeError
from models.metadata import Computable
from models.preemption import NO_PREEMPTION, Preemption
from models.text.encoder import Encoder
from models.text.model import TextModel
from models.text.packed.encoder import PackedEncoder
from models.text.sequence_classifier import SequenceClassifier
from models.text.tokenization import Tokens

log = logging.getLogger(__name__)

LoadedModel = Encoder | PackedEncoder | SequenceClassifier
Rows = NDArray[np.float32]
ItemT = TypeVar("ItemT", contravariant=True)

# The most by which rows may differ, as a share of the longest row: cosines of 0.999998, 0.9975 and 0.955. Batches of
# another size round differently: the shipped model's rows differ by 5e-4 (where few rows meet weights in float16),
# 0.01 and 0.1. int8 has no padding to read.
TOLERANCE = {"float32": 2e-3, "bfloat16": 0.07, "int8": 0.3}
# The most tokens of the text that is compared with itself in company. On a CPU no longer text has company by default.
_CPU_TOKENS, _GPU_TOKENS = 512, 2048
# A text at the model's limit is computed where that is expected to take no longer.
_MAX_LIMIT_PROBE_S = 5.0
_DEPENDS = "a text's row depends on the others of its batch"
_SHORT = "hello"
_WORDS = "the quick brown fox jumps over the lazy dog "


class RowModel(Computable, Protocol[ItemT]):
    """A model from items to rows of float32."""

    def forward(self, batch: Sequence[ItemT], preempt: Preemption = NO_PREEMPTION) -> Rows:
        """One float32 row [width] per item, in order."""
        ...


class OneItemByOne(Generic[ItemT]):
    """A model whose rows depend on the batch, so that it computes each item alone."""

    def __init__(self, model: RowModel[ItemT]) -> None:
        self._model = model
        self.metadata = model.metadata

    def forward(self, batch: Sequence[ItemT], preempt: Preemption = NO_PREEMPTION) -> Rows:
        """One float32 row [width] per item, in order."""
        return np.concatenate([self._model.forward([item], preempt) for item in batch])

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._model.memory_bytes()


class OneByOne(OneItemByOne[Tokens]):
    """A model that computes each text alone."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model)
        self.text = model.text


def check_batches(model: LoadedModel) -> TextModel:
    """The model, where texts have the same rows alone and in company; else the model one text at a time.

    The metadata says what was found. Raises ModelSourceError for a model that cannot compute a text alone, or one at
    its limit.
    """
    long = _read(model, _CPU_TOKENS if model.metadata.device == "cpu" else _GPU_TOKENS)
    short = _read(model, 1)
    began = time.perf_counter()
    alone = [_compute_text(model, item) for item in (long, short)]
    reach = _probe_limit(model, long.count, time.perf_counter() - began)
    expected = np.concatenate(alone)
    fault = find_fault(model, [long, short], expected, _DEPENDS)
    if fault and not isinstance(model, PackedEncoder) and model.padding.turn_left():
        fault = find_fault(model, [long, short], expected, _DEPENDS)
    if not fault:
        _describe(model, batches=f"texts share batches, their rows are those of texts alone; checked {reach}")
        return model
    log.warning("model %s computes one text at a time: %s", model.metadata.name, fault)
    _describe(model, batches=f"one text at a time: {fault}; checked {reach}", one_by_one=True, pads=False)
    return OneByOne(model)


def _describe(model: LoadedModel, **fields: Any) -> None:
    """Record in the metadata what was found."""
    model.metadata = replace(model.metadata, **fields)


def _read(model: LoadedModel, tokens: int) -> Tokens:
    """A text, or pair, of at least `tokens` tokens where the model reads as many."""
    limit = min(tokens, model.text.max_tokens)
    text = _SHORT if tokens == 1 else _WORDS * (limit // len(_WORDS.split()) + 1)
    if model.metadata.task == "rerank":
        return model.text.encode_pairs([(_SHORT, text)], max_tokens=limit)[0]
    return model.text.encode([text], max_tokens=limit)[0]


def _compute_text(model: LoadedModel, item: Tokens) -> Rows:
    return compute_alone(model, item, f"a text of {item.count} tokens")


def _probe_limit(model: LoadedModel, computed: int, seconds: float) -> str:
    """Compute a text at the model's limit, where it is longer than `computed` tokens and there is time for it.

    Returns up to which length the model was checked.
    """
    limit = model.text.max_tokens
    if limit <= computed:
        return f"up to its limit of {limit} tokens"
    if seconds * (limit / computed) ** 2 > _MAX_LIMIT_PROBE_S:
        return f"up to {computed} of its {limit} tokens, because more would delay the start"
    try:
        _compute_text(model, _read(model, limit))
    except ModelOutOfMemory:
        return f"up to {computed} of its {limit} tokens, because a longer text does not fit the memory"
    return f"in company up to {computed} tokens, alone up to its limit of {limit}"


def compute_alone(model: RowModel[ItemT], item: ItemT, called: str) -> Rows:
    """The row of one item, float32 [1, width]. Raises ModelSourceError, which names the item as `called`."""
    name = model.metadata.name
    try:
        row = model.forward([item])
    except SondeError:
        raise
    except Exception as error:  # transformers has no error class of its own
        message = f"{name}: expected a row for {called}, the model raised {error!r}"
        raise ModelSourceError(message, param="model") from error
    if not np.isfinite(row).all():
        raise ModelSourceError(f"{name}: expected finite numbers for {called}, got NaN or infinity", param="model")
    return row


def find_fault(model: RowModel[ItemT], probes: Sequence[ItemT], expected: Rows, depends: str) -> str:
    """Why rows [n, width] of probes in one batch are not those `expected`; empty where they are.

    `depends` says that a row depends on its batch.
    """
    try:
        rows = model.forward(probes)
    except SondeError:
        raise
    except Exception as error:  # a network may raise anything for a batch; items alone are computed then
        return f"it computes no batch ({error})"
    longest = float(np.linalg.norm(expected, axis=1).max())
    difference = float(np.linalg.norm(rows - expected, axis=1).max()) / (longest or 1.0)
    return "" if difference <= TOLERANCE[model.metadata.dtype] else f"{depends}, by {difference:.1%} of its length"
