"""What encoders of texts and of images share while they train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from models.runtime.placement import Placement
from models.source import ModelSource
from models.training.errors import TrainingError
from models.training.tuning.batches import Batch, InputPart, InputReader, restore_order

_MIN_COSINE = {"float32": 0.9999, "bfloat16": 0.995}


class TunableEncoder(nn.Module, ABC):
    """An encoder whose weights train, in float32 on any device.

    It gives embeddings float32 [n, d] of length 1, as in serving.
    """

    source: ModelSource
    placement: Placement
    reader: InputReader

    @property
    @abstractmethod
    def width(self) -> int:
        """Dimensions of the embedding."""

    @abstractmethod
    def save(self, directory: Path) -> Path:
        """Merge adapters, write a directory that the loader reads, and check its embeddings.

        The model cannot train afterwards. Raises TrainingError with code `saved_model_differs`.
        """

    @abstractmethod
    def _embed(self, part: dict[str, Tensor], prompt_tokens: int) -> Tensor:
        """Embeddings [m, d] of one part."""

    def forward(self, parts: Sequence[InputPart], prompt_tokens: int = 0) -> Tensor:
        """Embeddings of one column, in its order."""
        return restore_order(parts, [self._embed(part.features, prompt_tokens) for part in parts])

    def columns(self, batch: Batch) -> list[Tensor]:
        """Embeddings [n, d] of each column of a batch."""
        return [self(column, batch.prompt_tokens) for column in batch.columns]


def require_same(before: NDArray[np.float32], after: NDArray[np.float32], placement: Placement) -> None:
    """Raise TrainingError unless rows [n, d] of length 1 agree to the placement's precision."""
    least = float((before * after).sum(axis=1).min())
    if not least >= _MIN_COSINE[placement.dtype_name]:
        message = f"the saved encoder gives other embeddings than the trained one: least cosine {least:.5f}"
        raise TrainingError("saved_model_differs", message)
