"""What a model's tokeniser made of texts: which were cut, and how much of them it does not know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.text import TextProcessor, Tokens


def cut(items: Sequence[Tokens]) -> list[float]:
    """1.0 for each text of more tokens than the model reads, 0.0 for the others."""
    return [float(item.truncated) for item in items]


def unknown(items: Sequence[Tokens], processor: TextProcessor) -> list[float]:
    """The share of each text's own tokens that the vocabulary does not have, 0 to 1; 0 where it has no token for that."""
    if processor.unknown_id is None:
        return [0.0] * len(items)
    return [float(np.sum(item.ids == processor.unknown_id)) / max(len(item.ids) - processor.added, 1) for item in items]
