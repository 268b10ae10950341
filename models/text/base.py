"""The interface of models that read texts."""

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
    """A model from tokens to rows of float32."""

    @property
    def text(self) -> TextProcessor: ...

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """One float32 row [card.width] per item, in order. Calls `preempt` between its steps.

        Raises ModelOutOfMemory when the batch does not fit and DeviceLost when the device is gone.
        """
        ...
