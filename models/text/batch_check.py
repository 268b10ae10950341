"""The check at load that a text's row does not depend on the texts beside it in a batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelOutOfMemory, ModelSourceError, SondeError
from models.preemption import NO_PREEMPTION, Preemption
from models.text.base import TextModel
from models.text.encoder import Encoder
from models.text.packed.encoder import PackedEncoder
from models.text.sequence_classifier import SequenceClassifier
from models.text.tokens import Tokens

log = logging.getLogger(__name__)

LoadedModel = Encoder | PackedEncoder | SequenceClassifier
Rows = NDArray[np.float32]

# The most by which rows may differ, as a share of the longest row: cosines of 0.9999995, 0.9975 and 0.955. Batches of
# another size round differently: the shipped model's rows differ by 1e-6, 0.01 and 0.1. int8 has no padding to read.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.07, "int8": 0.3}
# The most tokens of the text that is compared with itself in company. On a CPU no longer text has company by default.
_CPU_TOKENS, _GPU_TOKENS = 512, 2048
# A text at the model's limit is computed where that is expected to take no longer.
_MAX_LIMIT_PROBE_S = 5.0
_SHORT = "hello"
_WORDS = "the quick brown fox jumps over the lazy dog "


class OneByOne:
    """A model whose rows depend on the batch, so that it computes each text alone."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self.metadata, self.text = model.metadata, model.text

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> Rows:
        """One float32 row [width] per item, in order."""
        return np.concatenate([self._model.forward([item], preempt) for item in batch])

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._model.memory_bytes()


def check_batches(model: LoadedModel) -> TextModel:
    """The model, where texts have the same rows alone and in company; else the model one text at a time.

    The metadata says what was found. Raises ModelSourceError for a model that cannot compute a text alone, or one at
    its limit.
    """
    long = _read(model, _CPU_TOKENS if model.metadata.device == "cpu" else _GPU_TOKENS)
    short = _read(model, 1)
    began = time.perf_counter()
    alone = [_compute_alone(model, item) for item in (long, short)]
    reach = _probe_limit(model, long.count, time.perf_counter() - began)
    expected = np.concatenate(alone)
    fault = _find_fault(model, [long, short], expected)
    if fault and not isinstance(model, PackedEncoder) and model.padding.turn_left():
        fault = _find_fault(model, [long, short], expected)
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


def _compute_alone(model: LoadedModel, item: Tokens) -> Rows:
    """The row of one text, float32 [1, width]."""
    name = model.metadata.name
    try:
        row = model.forward([item])
    except SondeError:
        raise
    except Exception as error:  # transformers has no error class of its own
        message = f"{name}: expected a row for a text of {item.count} tokens, the model raised {error!r}"
        raise ModelSourceError(message, param="model") from error
    if not np.isfinite(row).all():
        raise ModelSourceError(
            f"{name}: expected finite numbers for a text of {item.count} tokens, got NaN or infinity", param="model"
        )
    return row


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
        _compute_alone(model, _read(model, limit))
    except ModelOutOfMemory:
        return f"up to {computed} of its {limit} tokens, because a longer text does not fit the memory"
    return f"in company up to {computed} tokens, alone up to its limit of {limit}"


def _find_fault(model: LoadedModel, probes: list[Tokens], expected: Rows) -> str:
    """Why rows [n, width] of probes in one batch are not those `expected`; empty where they are."""
    try:
        rows = model.forward(probes)
    except SondeError:
        raise
    except Exception as error:  # a network may raise anything for a batch; texts alone are computed then
        return f"it computes no batch ({error})"
    longest = float(np.linalg.norm(expected, axis=1).max())
    difference = float(np.linalg.norm(rows - expected, axis=1).max()) / (longest or 1.0)
    if difference <= TOLERANCE[model.metadata.dtype]:
        return ""
    return f"a text's row depends on the others of its batch, by {difference:.1%} of its length"
