"""What the networks among the detectors share: seeded weights, one recipe of training, what judges, and what the debug ladder looks at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.sensors.descent import Descent, Watch, descend
from models.sensors.detector import SensorDetector, require_runs

# What a network sees of a reading: tails beyond so many units would only drive its weights.
SEEN = 8.0


class NetworkDetector(SensorDetector):
    """Base of detectors with a network that maps what is `given` of an example, float32, to what is `wanted` of it.

    `seed` makes the training repeatable, `descent` says what the last fit went through, and `watch` may look at its steps.
    """

    folds = 2

    def __init__(self, columns: int, window: int = 1, *, seed: int = 0) -> None:
        super().__init__(columns, window)
        self.seed = seed
        self.descent = Descent()
        self.watch: Watch | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = self.build()

    def build(self) -> nn.Module:
        """The network, its weights drawn anew."""
        raise NotImplementedError

    def products(self) -> nn.Module:
        """What takes the network's place once it has learned: the same function in float64, so that company changes no score."""
        raise NotImplementedError

    @cached_property
    def judge(self) -> nn.Module:
        """`products`, made once; neither a part of the module nor of what is saved."""
        with torch.no_grad():
            return self.products()

    def examples(self, x: Tensor) -> Tensor:
        """What can be learned from a run [rows, d], within sight: float32 [n, …]."""
        raise NotImplementedError

    def given(self, batch: Tensor) -> Tensor:
        """What the network takes of examples [n, …]."""
        return batch

    def wanted(self, batch: Tensor) -> Tensor:
        """What it should make of them."""
        return batch

    def loss(self, batch: Tensor) -> Tensor:
        """Mean squared error on examples."""
        return functional.mse_loss(self.network(self.given(batch)), self.wanted(batch))

    def learn(self, runs: Sequence[Tensor]) -> None:
        """Train on every example of every run."""
        require_runs(runs, self.window)
        examples = torch.cat([self.examples(run) for run in runs])
        self.descent = descend(self.network, self.loss, examples, seed=self.seed, watch=self.watch)
        self.__dict__.pop("judge", None)

    def settings(self) -> dict[str, Any]:
        """The seed that its weights were drawn by."""
        return {"seed": self.seed}
