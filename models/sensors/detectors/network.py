"""The base of network detectors: seeded weights, training, and exact scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.runtime.device import threads_set_to
from models.sensors.detectors.detector import SensorDetector, pieces, require_runs

# Readings are clipped to this many units for training, so that tails do not dominate the weights.
MAX_UNITS = 8.0


class NetworkDetector(SensorDetector):
    """Base of detectors with a network from an example's `inputs` to its `targets`, float32.

    `seed` makes the training repeatable, `curve` holds the losses of the last fit, and `watch` observes its steps.
    """

    folds = 2

    def __init__(self, columns: int, window: int = 1, *, seed: int = 0) -> None:
        super().__init__(columns, window)
        self.seed = seed
        self.curve = TrainingCurve()
        self.watch: Watch | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = self.build()

    def build(self) -> nn.Module:
        """A network with random weights."""
        raise NotImplementedError

    def build_exact(self) -> nn.Module:
        """The trained network in float64, whose scores do not depend on the batch."""
        raise NotImplementedError

    @cached_property
    def exact(self) -> nn.Module:
        """`build_exact`, built once; it is not a submodule and is not saved."""
        with torch.no_grad():
            return self.build_exact()

    def examples(self, x: Tensor) -> Tensor:
        """The training examples of a run [rows, d], clipped: float32 [n, …]."""
        raise NotImplementedError

    def inputs(self, batch: Tensor) -> Tensor:
        """The network's inputs of examples [n, …]."""
        return batch

    def targets(self, batch: Tensor) -> Tensor:
        """The targets of examples [n, …]."""
        return batch

    def loss(self, batch: Tensor) -> Tensor:
        """Mean squared error on examples."""
        return functional.mse_loss(self.network(self.inputs(batch)), self.targets(batch))

    def learn(self, runs: Sequence[Tensor]) -> None:
        """Train on every example of every run."""
        require_runs(runs, self.window)
        examples = torch.cat([self.examples(run) for run in runs])
        self.curve = train_network(self.network, self.loss, examples, seed=self.seed, watch=self.watch)
        self.__dict__.pop("exact", None)

    def settings(self) -> dict[str, Any]:
        """The seed of its weights."""
        return {"seed": self.seed}


BATCH = 256
LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-4
_EXAMPLES = 100_000
_LEAST_EPOCHS, _MOST_EPOCHS = 4, 60
_MOST_NORM = 1.0


class StepWatch(Protocol):
    """Observes gradients and weights around a step of the optimizer."""

    def step(self) -> AbstractContextManager[None]:
        """Entered after backward, left after the step."""
        ...


Watch = Callable[[nn.Module, torch.optim.Optimizer], StepWatch]


@dataclass(frozen=True, slots=True)
class TrainingCurve:
    """The losses of a training: the mean of each epoch, and each step's."""

    epochs: tuple[float, ...] = ()
    steps: tuple[float, ...] = ()


def train_network(
    module: nn.Module, loss: Callable[[Tensor], Tensor], examples: Tensor, *, seed: int, watch: Watch | None = None
) -> TrainingCurve:
    """Train on about 100,000 examples [n, …] (4 to 60 epochs) by AdamW with a cosine schedule."""
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


def _one_thread() -> AbstractContextManager[None]:
    """Compute with one thread, because steps of a few milliseconds only wait for a second."""
    return threads_set_to(1)
