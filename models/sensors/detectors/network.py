"""What detectors with a network share: seeded weights, one recipe of gradient descent, what judges, what the checks
look at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.sensors.detectors.base import SensorDetector, pieces, require_runs

# What a network sees of a reading: tails beyond so many units would only drive its weights.
TRAINED_ON = 8.0


class NetworkDetector(SensorDetector):
    """Base of detectors with a network that maps what is `given` of an example, float32, to what is `wanted` of it.

    `seed` makes the training repeatable, `descent` says what the last fit went through, and `watch` may look at its
    steps.
    """

    folds = 2

    def __init__(self, columns: int, window: int = 1, *, seed: int = 0) -> None:
        super().__init__(columns, window)
        self.seed = seed
        self.descent = TrainingCurve()
        self.watch: Watch | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = self.build()

    def build(self) -> nn.Module:
        """The network, its weights drawn anew."""
        raise NotImplementedError

    def products(self) -> nn.Module:
        """What takes the network's place once it has learned: the same function in float64, so that company changes
        no score.
        """
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
        self.descent = train_network(self.network, self.loss, examples, seed=self.seed, watch=self.watch)
        self.__dict__.pop("judge", None)

    def settings(self) -> dict[str, Any]:
        """The seed that its weights were drawn by."""
        return {"seed": self.seed}


BATCH = 256
LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-4
_EXAMPLES = 100_000
_LEAST_EPOCHS, _MOST_EPOCHS = 4, 60
_MOST_NORM = 1.0


class StepWatch(Protocol):
    """Looks at gradients and weights around a step of the optimizer."""

    def step(self) -> AbstractContextManager[None]:
        """Entered after backward, left after the step."""
        ...


Watch = Callable[[nn.Module, torch.optim.Optimizer], StepWatch]


@dataclass(frozen=True, slots=True)
class TrainingCurve:
    """What a training went through: the mean loss of each epoch, and the loss of each step."""

    epochs: tuple[float, ...] = ()
    steps: tuple[float, ...] = ()


def train_network(
    module: nn.Module, loss: Callable[[Tensor], Tensor], examples: Tensor, *, seed: int, watch: Watch | None = None
) -> TrainingCurve:
    """Train for about 100,000 examples [n, …] (4 to 60 epochs) by AdamW, the rate falling along half a cosine."""
    epochs = min(max(_EXAMPLES // len(examples), _LEAST_EPOCHS), _MOST_EPOCHS)
    total = epochs * math.ceil(len(examples) / BATCH)
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total)))
    watched = watch(module, optimizer) if watch is not None else None
    generator = torch.Generator().manual_seed(seed)
    losses: list[list[float]] = []
    module.train()
    with _one_thread():
        for _ in range(epochs):
            order = torch.randperm(len(examples), generator=generator).to(examples.device)
            losses.append([])
            for rows in pieces(order, BATCH):
                losses[-1].append(_step(module, loss, examples[rows], optimizer, watched))
                schedule.step()
    module.eval()
    return TrainingCurve(
        tuple(sum(epoch) / len(epoch) for epoch in losses), tuple(value for epoch in losses for value in epoch)
    )


def _step(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    batch: Tensor,
    optimizer: torch.optim.Optimizer,
    watched: StepWatch | None,
) -> float:
    optimizer.zero_grad(set_to_none=True)
    value = loss(batch)
    torch.autograd.backward([value])
    with watched.step() if watched is not None else nullcontext():
        nn.utils.clip_grad_norm_(module.parameters(), _MOST_NORM)
        optimizer.step()
    return float(value.detach())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Steps of a few milliseconds are over before a second thread helps; where others use the cores, most would be
    waiting for it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
