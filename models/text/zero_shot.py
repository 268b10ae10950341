"""Classification without training, by the label whose texts are nearest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.text.confidence import Confidence

# Fitted with all-MiniLM-L6-v2 on Banking77 and CLINC150, label names alone (benchmarks/zeroshot.py): the likelihood is
# best at 0.045 to 0.065 for 2 to 150 labels. Encoders with another spread of cosines are less well calibrated.
TEMPERATURE = 0.05
# The same for single labels among ten: the cosine of probability ½, and the temperature of the sigmoid.
MULTI_LABEL_BIAS = 0.47
MULTI_LABEL_TEMPERATURE = 0.077


class ZeroShotHead(nn.Module):
    """Cosines to one prototype per label, made probabilities by a temperature and a ceiling.

    `prototypes` is float32 [labels, d] with rows of length 1.
    """

    prototypes: Tensor

    def __init__(self, prototypes: Tensor, confidence: Confidence | None = None) -> None:
        super().__init__()
        self.confidence = confidence or Confidence(TEMPERATURE)
        self.register_buffer("prototypes", prototypes)

    @classmethod
    def from_texts(cls, vectors: Tensor, owners: Sequence[int], judges: Tensor | None = None) -> ZeroShotHead:
        """A head from embeddings [m, d] of texts about labels; text i is about label `owners[i]`.

        The texts of the mask `judges` [m] calibrate it, each against its label's prototype without the text itself.
        Without `judges`, the temperature is that of names alone.
        """
        owner = torch.tensor(owners)
        if vectors.ndim != 2 or len(owner) != len(vectors):
            raise ValueError(f"expected vectors [m, d] and m owners, got {list(vectors.shape)} and {len(owner)}")
        texts = nn.functional.normalize(vectors.float(), dim=-1)
        sums = torch.zeros(int(owner.max()) + 1, vectors.shape[1]).index_add_(0, owner, texts)
        prototypes = nn.functional.normalize(sums, dim=-1)
        if judges is None:
            return cls(prototypes)
        texts, owner = texts[judges], owner[judges]
        others = nn.functional.normalize(sums[owner] - texts, dim=-1)
        cosines = (texts @ prototypes.T).scatter(1, owner[:, None], (texts * others).sum(dim=1, keepdim=True))
        return cls(prototypes, Confidence.fitted(cosines, owner))

    def forward(self, x: Tensor, *, multi_label: bool = False) -> Tensor:
        """Embeddings [n, d] → probabilities [n, labels]: summing to 1, or each label by itself."""
        cosine = nn.functional.normalize(x.float(), dim=-1) @ self.prototypes.T
        if multi_label:
            logits = (cosine - MULTI_LABEL_BIAS) / MULTI_LABEL_TEMPERATURE
            return self.confidence.probabilities(logits, multi_label=True)
        return self.confidence.probabilities(cosine / self.confidence.temperature)
