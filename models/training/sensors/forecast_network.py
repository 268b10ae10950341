"""Training of a forecaster's patch network by gradient descent."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from models.sensors.forecasting.networks import LinearForecast, PatchForecast
from models.sensors.forecasting.windows import Windows

PATCH_STEPS = 16
_MAX_GRAD_NORM = 1.0
# Runs the optimizer step given to it; gets the loss and the step's number, from 1.
AroundStep = Callable[[Callable[[], None], float, int], None]


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Settings of the network's training; a step takes `batch_windows` with all columns.

    Training ends after `patience` epochs without a better one.
    """

    epochs: int = 8
    patience: int = 2
    batch_windows: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LossCurve:
    """Each epoch's mean training loss, and validation errors before and after each epoch."""

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)


class NetworkFit:
    """Trains a network that starts as the linear map, and keeps the weights of the best epoch."""

    def __init__(self, linear: LinearForecast, train: Windows, settings: NetworkSettings) -> None:
        torch.manual_seed(settings.seed)
        self._windows, self._settings, self.steps, self.curve = train, settings, 0, LossCurve()
        maps = linear.settings()["maps"]
        self.model = PatchForecast(train.context, train.horizon, patch_length(train.context), maps)
        self.model.linear.load_state_dict(linear.state_dict())
        rate, parameters = settings.learning_rate, self.model.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=settings.weight_decay)
        total_steps = settings.epochs * -(-len(train) // settings.batch_windows)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rate, total_steps=total_steps)
        self._generator = torch.Generator().manual_seed(settings.seed)

    def sample(self, windows: int) -> tuple[Tensor, Tensor]:
        """Some windows in the order of time, evenly spread."""
        return self._windows.take(torch.linspace(0, len(self._windows) - 1, min(windows, len(self._windows))).long())

    def train(self, validate: Callable[[], float], around_step: AroundStep | None = None) -> list[float]:
        """Train until `patience` epochs in a row are no better, then restore the best.

        `validate` measures the error; lower is better. Returns the validation errors before training and after each
        epoch.
        """
        self.curve = LossCurve()
        errors, best = self.curve.validation, copy.deepcopy(self.model.state_dict())
        errors.append(validate())
        for _ in range(self._settings.epochs):
            self.curve.loss.append(self._train_epoch(around_step or (lambda step, loss, number: step())))
            errors.append(validate())
            if errors[-1] <= min(errors):
                best = copy.deepcopy(self.model.state_dict())
            if int(np.argmin(errors)) < len(errors) - self._settings.patience:
                break
        self.model.load_state_dict(best)
        return errors

    def _train_epoch(self, around_step: AroundStep) -> float:
        """Take one pass over the windows in random order, and return the mean loss."""
        losses: list[float] = []
        self.model.train()
        order = torch.randperm(len(self._windows), generator=self._generator)
        for index in torch.split(order, self._settings.batch_windows):
            losses.append(self._backward(index))
            self.steps += 1
            around_step(self._update, losses[-1], self.steps)
        self.model.eval()
        return float(np.mean(losses))

    def _backward(self, index: Tensor) -> float:
        x, y = self._windows.take(index)
        loss = nn.functional.mse_loss(self.model(x), y)
        self.optimizer.zero_grad()
        torch.autograd.backward([loss])
        return float(loss.detach())

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), _MAX_GRAD_NORM)
        self.optimizer.step()
        self._schedule.step()


def patch_length(context: int) -> int:
    """16 steps, or fewer where the context has less than four such patches."""
    return max(1, min(PATCH_STEPS, context // 4))
