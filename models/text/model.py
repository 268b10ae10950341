"""The interface of models that read texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.metadata import Computable, ModelMetadata
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.placement import Placement
from models.source import ModelSource
from models.text.tokenization import TextProcessor, Tokens


class DescribedTextModel(Computable, Protocol):
    """What a model in service needs of one that reads texts, which may be in the engine process."""

    @property
    def text(self) -> TextProcessor: ...


class TextModel(DescribedTextModel, Protocol):
    """A model from tokens to rows of float32."""

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """One float32 row [metadata.width] per item, in order. Calls `preempt` between its steps.

        Raises ModelOutOfMemory when the batch does not fit and DeviceLost when the device is gone.
        """
        ...


def text_metadata(source: ModelSource, placement: Placement, text: TextProcessor, **fields: Any) -> ModelMetadata:
    """The metadata of a text model: `fields`, and those of its source, placement and tokenizer."""
    return ModelMetadata(
        name=source.name,
        version=source.version,
        origin=source.origin,
        max_tokens=text.max_tokens,
        vocabulary=text.vocabulary,
        device=str(placement.device),
        dtype=placement.dtype_name,
        reason=placement.reason,
        **fields,
    )
