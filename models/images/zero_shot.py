"""Labels as texts, compared with images by an encoder of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.linalg import normalize
from models.probabilities import probabilities

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LabelPrototypes:
    """A direction for each label, float32 [labels, d]: the mean of its texts' directions."""

    directions: Rows

    @classmethod
    def of(cls, texts: Rows, owners: Sequence[int]) -> LabelPrototypes:
        """The labels of text vectors [n, d]; `owners` has each text's label, from 0 without gaps."""
        sums = np.zeros((max(owners) + 1, texts.shape[1]), dtype=np.float32)
        np.add.at(sums, list(owners), normalize(texts))
        return cls(normalize(sums))

    @property
    def size_bytes(self) -> int:
        return self.directions.nbytes

    def probabilities(self, images: Rows, scale_and_bias: tuple[float, float], *, multi_label: bool) -> Rows:
        """Probabilities [n, labels] of image vectors [n, d]: summing to 1, or of each label by itself.

        Cosines become logits by the scale and bias that the model was trained with.
        """
        scale, bias = scale_and_bias
        return probabilities(scale * (normalize(images) @ self.directions.T) + bias, multi_label=multi_label)
