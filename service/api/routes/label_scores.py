"""Probabilities of labels, and whether an input is any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.text.detectors.detector import ScoredTexts
from service.serving.image_model import ImageOutput
from service.serving.program_model import ProgramRows
from service.serving.text_model import ModelOutput


@dataclass(frozen=True)
class LabelScores:
    """Probabilities float32 [n, labels] of inputs that are in scope and, where known, whether they are.

    `parts` were computed for them. `label_set` describes labels that came with the request.
    """

    names: Sequence[str]
    in_scope: NDArray[np.float32]
    scope: ScoredTexts | None
    parts: tuple[ModelOutput | ImageOutput | ProgramRows, ...]
    label_set: dict[str, object] | None = None

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """Probabilities float32 [n, labels] that the input is in scope and has the label."""
        return self.in_scope if self.scope is None else self.in_scope * self.scope.in_scope.numpy()[:, None]
