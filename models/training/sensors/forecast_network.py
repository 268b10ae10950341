"""Training the patch network of a forecaster by descent."""

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
# Takes the step it is given; sees the loss and which step it is, from 1.
AroundStep = Callable[[Callable[[], None], float, int], None]


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How the network is trained: passes over the windows, windows a step (each with all its columns), step size,
    and the seed.

    It ends after `patience` epochs without a better one.
    """

    epochs: int = 8
    patience: int = 2
    batch_windows: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LossCurve:
    """What a training went through: each epoch's mean loss, and its judgement by the validation windows; the first
    is before any.
    """

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)


class NetworkFit:
    """Trains a network that starts as the linear map, keeping the weights of the epoch that validation windows like
    best.
    """

    def __init__(self, linear: LinearForecast, train: Windows, descent: NetworkSettings) -> None:
        torch.manual_seed(descent.seed)
        self._windows, self._descent, self.steps, self.curve = train, descent, 0, LossCurve()
        maps = linear.settings()["maps"]
        self.model = PatchForecast(train.context, train.horizon, patch_for(train.context), maps)
        self.model.linear.load_state_dict(linear.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=descent.learning_rate, weight_decay=descent.weight_decay
        )
        self.total_steps = descent.epochs * -(-len(train) // descent.batch_windows)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, descent.learning_rate, total_steps=self.total_steps
        )
        self._generator = torch.Generator().manual_seed(descent.seed)

    def sample(self, windows: int) -> tuple[Tensor, Tensor]:
        """Some windows in the order of time, far apart."""
        return self._windows.take(torch.linspace(0, len(self._windows) - 1, min(windows, len(self._windows))).long())

    def train(self, judge: Callable[[], float], around_step: AroundStep | None = None) -> list[float]:
        """Train until `patience` epochs in a row were no better by `judge` (lower is better), and go back to the best.

        The judgement of each epoch. `around_step` takes the optimizer's step given to it, and sees the loss and the
        step's number.
        """
        self.curve = LossCurve()
        judged, best = self.curve.validation, copy.deepcopy(self.model.state_dict())
        judged.append(judge())
        for _ in range(self._descent.epochs):
            self.curve.loss.append(self._epoch(around_step or _step_alone))
            judged.append(judge())
            if judged[-1] <= min(judged):
                best = copy.deepcopy(self.model.state_dict())
            if int(np.argmin(judged)) < len(judged) - self._descent.patience:
                break
        self.model.load_state_dict(best)
        return judged

    def _epoch(self, around_step: AroundStep) -> float:
        """Its mean loss."""
        losses: list[float] = []
        self.model.train()
        order = torch.randperm(len(self._windows), generator=self._generator)
        for index in torch.split(order, self._descent.batch_windows):
            x, y = self._windows.take(index)
            loss = nn.functional.mse_loss(self.model(x), y)
            self.optimizer.zero_grad()
            torch.autograd.backward([loss])
            self.steps += 1
            losses.append(float(loss.detach()))
            around_step(self._step, losses[-1], self.steps)
        self.model.eval()
        return float(np.mean(losses))

    def _step(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._schedule.step()


def _step_alone(step: Callable[[], None], loss: float, number: int) -> None:
    step()


def patch_for(context: int) -> int:
    """The length of a patch: 16 steps, less where the context has fewer than four of them."""
    return max(1, min(PATCH_STEPS, context // 4))
