"""The network that all compared servers compute: 16 numbers in, scores of 4 classes out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

COLUMNS, CLASSES = 16, 4


class Network(nn.Module):
    """Two linear layers; the weights are random, with the same seed everywhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, CLASSES))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Scores [n, 4] of rows [n, 16]."""
        return {"scores": self.layers(x)}


def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """What `sonde export` calls."""
    return Network(), (torch.zeros(2, COLUMNS),)
