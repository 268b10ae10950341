"""The supervised training loop: learn from a batch, report it, save checkpoints.

Everything random in a step (its rows, their augmentation, dropout) is a function of the seed and the step's number.
So a resumed run takes the very steps of an uninterrupted one, and a checkpoint holds no random state.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from models.runtime.placement import Placement
from models.training.errors import TrainingError
from models.training.hyperparameters import PARAM
from models.training.job_events import Events, emit
from models.training.report import Report
from models.training.tuning.batches import Batch, Batches, load_batches
from models.training.tuning.checkpoint import RunCheckpoints
from models.training.tuning.optimizer import build_optimizer, learning_rate, set_learning_rate
from models.training.tuning.progress import TrainingProgress, TrainingRun
from models.training.tuning.reproducibility import reproducible, seed_step
from models.training.tuning.settings import TunerSettings
from models.training.tuning.step_autotune import choose_autocast
from models.training.tuning.stop_signal import TrainingStopped, stop_signal
from models.training.tuning.training_checks import TrainingChecks


class TrainingLoop:
    """One run over a plan of batches.

    The forward pass runs under bfloat16 autocast where `choose_autocast` says so; weights and optimizer are float32.

    Args:
        module: holds all that trains.
        loss: computes a scalar from a batch on the placement's device.
        batches: the batches, one a step.
        settings: the optimizer, its schedule and the seed.
        placement: the device and dtype.
        directory: takes the checkpoints.
        events: takes metrics, checkpoints and messages.
        fingerprint: tells these rows and this stage from others, so that no other run's checkpoint is resumed.
        report: takes the findings of the loss and gradient checks; None skips them.
        fresh: whether nothing in `module` has been made from these rows.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Batch], Tensor],
        batches: Batches,
        settings: TunerSettings,
        placement: Placement,
        *,
        directory: Path,
        events: Events,
        fingerprint: str = "",
        report: Report | None = None,
        fresh: bool = True,
    ) -> None:
        if not len(batches):
            raise TrainingError("no_steps", "there is no batch to train on", "training_file")
        self._module, self._loss, self._batches, self._settings = module, loss, batches, settings
        self._placement = placement
        self._half, self._why = choose_autocast(placement)
        self._events = events
        self._optimizer = build_optimizer(module, settings, placement)
        self._progress = TrainingProgress(len(batches), events)
        self._checks = TrainingChecks(module, self._optimizer, report, len(batches), fresh=fresh)
        digest = _digest(f"{fingerprint}:{json.dumps(asdict(settings))}:{batches.plan}")
        self._checkpoints = RunCheckpoints(
            directory, digest, settings.checkpoint_every, module, self._optimizer, events
        )

    def run(self, resume: Path | None = None) -> TrainingRun:
        """Train to the end of the plan, from the checkpoint in `resume` if it is one of this run.

        Raises TrainingError with code `loss_not_finite`, `gradient_not_finite` or `out_of_memory`, CheckFailed for a
        failed check, and TrainingStopped on SIGTERM.
        """
        first = self._checkpoints.resume(resume, len(self._batches))
        self._begin(first)
        device = self._placement.device
        with stop_signal() as stop_requested, reproducible(device):
            self._module.train()
            for step, batch in enumerate(load_batches(self._batches, first, device), start=first + 1):
                rate = self._set_learning_rate(step)
                loss = self._learn(step, batch.to(device), rate)
                self._progress.report(step, loss, rate, batch)
                self._save(step, stop=stop_requested())
            self._module.eval()
        return self._progress.result()

    def _begin(self, first: int) -> None:
        emit(self._events, f"training in {'bfloat16' if self._half else 'float32'}: {self._why}")
        self._checks.begin(first)
        # Reading the earlier steps again gives the same augmented texts, and so their tokens.
        self._progress.begin(first, sum(self._batches[step].tokens for step in range(first)))

    def _set_learning_rate(self, step: int) -> float:
        rate = learning_rate(self._settings, step, len(self._batches))
        set_learning_rate(self._optimizer, rate)
        return rate

    def _learn(self, step: int, batch: Batch, rate: float) -> float:
        """Take one optimizer step and return its loss."""
        try:
            self._checks.before_step(lambda: self._compute_loss(step, batch))
            loss = self._backward(step, batch, rate)
            self._optimizer.step()
        except torch.OutOfMemoryError as error:
            message = f"step {step}: {len(batch)} rows do not fit the memory of {self._placement.device}"
            raise TrainingError("out_of_memory", message, f"{PARAM}.batch_size") from error
        self._checks.after_step(loss)
        return loss

    def _save(self, step: int, *, stop: bool) -> None:
        self._checkpoints.save(step, self._progress.recent_loss, now=stop)
        if stop:
            raise TrainingStopped

    def _compute_loss(self, step: int, batch: Batch) -> Tensor:
        # Seeded here and not once a step: the check of the first loss must not change the step's dropout.
        seed_step(self._settings.seed, step)
        with torch.autocast(self._placement.device.type, torch.bfloat16, enabled=self._half):
            return self._loss(batch)

    def _backward(self, step: int, batch: Batch, rate: float) -> float:
        """Compute the loss and the clipped gradients."""
        loss = self._compute_loss(step, batch)
        value = loss.item()
        if not math.isfinite(value):
            message = f"step {step}: the loss is {value} at learning rate {rate:.2g}; rows {batch.rows[:8]}"
            raise TrainingError("loss_not_finite", message, f"{PARAM}.learning_rate")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._checks.before_update()
        trainable = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        norm = nn.utils.clip_grad_norm_(trainable, self._settings.max_grad_norm)
        if not torch.isfinite(norm):
            message = f"step {step}: the gradient's norm is {norm.item()}"
            raise TrainingError("gradient_not_finite", message, f"{PARAM}.learning_rate")
        return value


def fingerprint(*parts: object) -> str:
    """A digest of a run's inputs."""
    return _digest(json.dumps(parts, default=str))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
