"""Neighbours: the distance to the nearest normal items."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from models.linalg import SAME_VECTOR_COSINE
from models.text.detectors.detector import CalibratedTextDetector, ScoredTexts

_NEIGHBOURS = 3
# Rows per similarity matrix: 1,024 x 20,000 float32 are 80 MB.
_ROWS_AT_ONCE = 1024


class KnnDetector(CalibratedTextDetector):
    """Mean cosine distance to the nearest normal items.

    `fit` takes normal embeddings float [m, d], m ≥ 2, and calibrates by leaving each item and its copies out once. A
    score is between 0 (a normal item) and 2; higher is more anomalous.
    """

    kind = "knn"
    reference: Tensor

    def __init__(self, neighbours: int = _NEIGHBOURS) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.register_buffer("reference", torch.empty(0, 0))

    def fit(self, x: Tensor, *, calibrated: bool = True) -> Self:
        """Keep normal items [m, d] and score each against the others.

        Without `calibrated`, `calibrate` has to follow.
        """
        if x.ndim != 2 or len(x) < self.least:
            raise ValueError(f"reference: expected shape [m, d] with m >= {self.least}, got {list(x.shape)}")
        self.reference = nn.functional.normalize(x.float(), dim=-1)
        if not calibrated:
            return self
        neighbours = min(self.neighbours, len(x) - 1)
        parts = []
        for start in range(0, len(x), _ROWS_AT_ONCE):
            similarity = self.reference[start : start + _ROWS_AT_ONCE] @ self.reference.T
            similarity[similarity > SAME_VECTOR_COSINE] = -torch.inf
            parts.append(_distance(similarity, neighbours))
        return self.calibrate(torch.cat(parts))

    def score(self, x: Tensor, *, explain: int = 3) -> ScoredTexts:
        """Score items [n, d] and name the `explain` nearest reference items of each."""
        neighbours = min(self.neighbours, len(self.reference) - 1)
        scores, nearest, similarities = [], [], []
        items = nn.functional.normalize(x.float(), dim=-1)
        for start in range(0, len(items), _ROWS_AT_ONCE):
            similarity = items[start : start + _ROWS_AT_ONCE] @ self.reference.T
            scores.append(_distance(similarity, neighbours))
            best = similarity.topk(min(explain, len(self.reference)), dim=-1)
            nearest.append(best.indices)
            similarities.append(best.values.clamp(-1.0, 1.0))
        return self.with_p_values(torch.cat(scores), torch.cat(nearest), torch.cat(similarities))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of items [n, d]."""
        return self.score(x, explain=1).scores

    def settings(self) -> dict[str, object]:
        """The number of neighbours."""
        return {"neighbours": self.neighbours}


class ReferenceDetector(KnnDetector):
    """The kNN detector of a request with its own reference texts."""


def _distance(similarity: Tensor, neighbours: int) -> Tensor:
    # In float32 the cosine of equal vectors may be a little more than 1.
    return 1.0 - similarity.topk(neighbours, dim=-1).values.clamp(-1.0, 1.0).mean(dim=-1)
