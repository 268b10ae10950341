"""Gradient descent for the small networks among the detectors: one recipe for all, the same on every run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from models.sensors.detector import pieces

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
class Descent:
    """What a training went through: the mean loss of each epoch, and the loss of each step."""

    epochs: tuple[float, ...] = ()
    steps: tuple[float, ...] = ()


def descend(module: nn.Module, loss: Callable[[Tensor], Tensor], examples: Tensor, *, seed: int, watch: Watch | None = None) -> Descent:
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
    return Descent(tuple(sum(epoch) / len(epoch) for epoch in losses), tuple(value for epoch in losses for value in epoch))


def _step(
    module: nn.Module, loss: Callable[[Tensor], Tensor], batch: Tensor, optimizer: torch.optim.Optimizer, watched: StepWatch | None
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
    """Steps of a few milliseconds are over before a second thread helps; where others use the cores, most would be waiting for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
