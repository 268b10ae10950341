"""The seam between the engine and torch for models that read texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.base import Computable
from models.preemption import NO_PREEMPTION, Preemption
from models.text.tokenization import TextProcessor
from models.text.tokens import Tokens


class TextModel(Computable, Protocol):
    """The seam between the engine and torch: tokens in, rows of numbers out."""

    @property
    def text(self) -> TextProcessor: ...

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """One float32 row [card.width] per item, in order. `preempt` is called between its parts.

        Raises ModelOutOfMemory when the batch does not fit and DeviceLost when the device is gone.
        """
        ...
