"""Heads under which an encoder learns labels; a fitted linear head replaces them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.training.hyperparameters import Head
from models.training.tuning.batches import Batch, Batches
from models.training.tuning.losses import require_vector
from models.training.tuning.tunable_encoder import TunableEncoder


class CosineHead(nn.Module):
    """Cosines to one vector for each label, divided by a temperature."""

    def __init__(self, vectors: Tensor, temperature: float) -> None:
        super().__init__()
        self.weight, self.temperature = nn.Parameter(vectors.clone()), temperature

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, labels] of embeddings [n, d]."""
        return x @ functional.normalize(self.weight, dim=-1).T / self.temperature


class EncoderWithHead(nn.Module):
    """An encoder and a head on its embeddings."""

    def __init__(self, encoder: TunableEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def loss(self, batch: Batch) -> Tensor:
        """The cross-entropy of a batch."""
        if batch.targets is None:
            raise ValueError("expected targets, got none")
        require_vector(batch.targets, len(batch), torch.int64)
        return functional.cross_entropy(self.head(self.encoder.columns(batch)[0]), batch.targets)


def build_head(kind: Head, means: Tensor, temperature: float) -> nn.Module:
    """A head that starts at the cosines to the labels' means [labels, d].

    A random head would have to learn first. "cosine" keeps its vectors at length 1; "linear" has
    weights of any length and a bias.
    """
    if kind == "cosine":
        return CosineHead(means, temperature)
    head = nn.Linear(means.shape[1], means.shape[0], device=means.device)
    with torch.no_grad():
        head.weight.copy_(means / temperature)
        head.bias.zero_()
    return head


def label_means(encoder: TunableEncoder, batches: Batches, labels: int) -> Tensor:
    """The mean embedding of each label's inputs, scaled to length 1: [labels, d]."""
    encoder.eval()
    device = encoder.placement.device
    sums = torch.zeros(labels, encoder.width, device=device)
    with torch.no_grad():
        for step in range(len(batches)):
            batch = batches[step].to(device)
            if batch.targets is not None:
                sums.index_add_(0, batch.targets, encoder.columns(batch)[0])
    return functional.normalize(sums, dim=-1)
