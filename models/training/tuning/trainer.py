"""The supervised loop: batches → loss → gradients → update, with metrics, checkpoints and a stop that loses nothing.

Everything random in a step (its rows, their augmentation, dropout) is a function of the seed and the step's number,
so a resumed run takes the very steps of an uninterrupted one and a checkpoint holds no generator's state.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from models.runtime import cpu as cores
from models.runtime.placement import Placement
from models.training.checks.gradient import GradientMonitor, check_gradient
from models.training.checks.loss import check_loss, check_slope
from models.training.errors import TrainingError
from models.training.events import Events, emit
from models.training.hyperparameters import PARAM
from models.training.report import Report
from models.training.tuning import checkpoint as checkpoints
from models.training.tuning.batches import Batch, Batches
from models.training.tuning.settings import TunerSettings

# A run tells its metrics at most so often; each time the mean loss since the last.
_MOST_METRICS = 500
_WATCHED_STEPS = 10
_SLOPE_STEPS = 40
_LEAST_SLOPE_STEPS = 4


class TrainingStopped(SystemExit):
    """SIGTERM came and a checkpoint was written; unless someone catches it, the process exits with 143."""

    def __init__(self, checkpoint: Path | None) -> None:
        super().__init__(143)
        self.checkpoint = checkpoint


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What a run did: steps of this attempt and the loss of each, tokens of this and all earlier ones."""

    steps: int
    resumed_at: int
    losses: tuple[float, ...]
    tokens: int
    seconds: float


class Tuner:
    """One run over one plan of batches.

    `module` holds all that trains; `loss` makes a scalar of a batch on the placement's device. The forward pass runs
    under bfloat16 autocast where the placement computes in bfloat16; weights and optimizer are float32. Checkpoints
    go to `directory`. What rungs 3 and 4 of the debug ladder find goes to `report`. `fresh`: nothing in `module` has
    been made from these rows.
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
        self._placement, self._directory, self._events = placement, directory, events
        self._fingerprint = hashlib.sha256(
            f"{fingerprint}:{json.dumps(asdict(settings))}:{batches.plan}".encode()
        ).hexdigest()[:16]
        self._optimizer = _optimizer(module, settings, placement)
        self._metrics = _MetricEvents(len(batches), events)
        self._checks = _Checks(module, self._optimizer, report, len(batches), fresh=fresh)

    def run(self, resume: Path | None = None) -> TrainingRun:
        """Train to the end of the plan, from the checkpoint in `resume` if it is one of this run.

        Raises TrainingError with code `loss_not_finite`, `gradient_not_finite` or `out_of_memory`, LadderError where
        a rung fails, TrainingStopped on SIGTERM.
        """
        first = self._resume(resume)
        self._checks.begin(first)
        # An augmented text is the same one when it is read again.
        self._metrics.begin(first, sum(self._batches[step].tokens for step in range(first)))
        with _stop_signal() as told_to_stop, _reproducible(self._placement):
            self._module.train()
            for step, batch in enumerate(self._loaded(first), start=first + 1):
                self._learn(step, batch.to(self._placement.device))
                if told_to_stop() or (self._settings.checkpoint_every and step % self._settings.checkpoint_every == 0):
                    self._checkpoint(step)
                if told_to_stop():
                    raise TrainingStopped(self._directory)
            self._module.eval()
        return self._metrics.fitted(first)

    def _learn(self, step: int, batch: Batch) -> None:
        torch.manual_seed(_step_seed(self._settings.seed, step))
        rate = self._set_rate(step)
        try:
            self._checks.before_first(lambda: self._computed(batch))
            value = self._forward_backward(step, batch, rate)
            self._optimizer.step()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "out_of_memory",
                f"step {step}: {len(batch)} rows do not fit the memory of {self._placement.device}",
                f"{PARAM}.batch_size",
            ) from error
        self._checks.after_update(value)
        self._metrics.step(step, value, rate, batch)

    def _forward_backward(self, step: int, batch: Batch, rate: float) -> float:
        loss = self._computed(batch)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                "loss_not_finite",
                f"step {step}: the loss is {value} at learning rate {rate:.2g}; rows {batch.rows[:8]}",
                f"{PARAM}.learning_rate",
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._checks.before_update()
        self._clip(step)
        return value

    def _computed(self, batch: Batch) -> Tensor:
        with torch.autocast(
            self._placement.device.type, torch.bfloat16, enabled=self._placement.dtype == torch.bfloat16
        ):
            return self._loss(batch)

    def _clip(self, step: int) -> None:
        norm = nn.utils.clip_grad_norm_(
            [p for p in self._module.parameters() if p.requires_grad], self._settings.max_grad_norm
        )
        if not torch.isfinite(norm):
            raise TrainingError(
                "gradient_not_finite", f"step {step}: the gradient's norm is {norm.item()}", f"{PARAM}.learning_rate"
            )

    def _set_rate(self, step: int) -> float:
        rate = learning_rate(self._settings, step, len(self._batches))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _loaded(self, first: int) -> Iterator[Batch]:
        workers = loader_workers(self._placement.device, cores.count_cores())
        loader: DataLoader[Batch] = DataLoader(
            self._batches,
            batch_size=None,
            sampler=range(first, len(self._batches)),
            num_workers=workers,
            pin_memory=self._placement.device.type == "cuda",
            # A fork would copy the tokenizer's locks, held or not.
            multiprocessing_context="spawn" if workers else None,
        )
        return iter(loader)

    def _checkpoint(self, step: int) -> None:
        written = checkpoints.write(self._directory, step, self._fingerprint, self._module, self._optimizer)
        self._events(
            {"type": "checkpoint", "step": step, "path": str(written.path), "metrics": {"loss": self._metrics.recent}}
        )

    def _resume(self, path: Path | None) -> int:
        found = checkpoints.read(path) if path is not None else None
        if found is None or found.fingerprint != self._fingerprint:
            if path is not None:
                emit(
                    self._events,
                    f"{path.name} holds no checkpoint of this run (other rows, settings or stage): starting afresh",
                    "warn",
                )
            return 0
        checkpoints.restore(found, self._module, self._optimizer)
        emit(self._events, f"resumed after step {found.step} of {len(self._batches)}", "info")
        return found.step


class _Checks:
    """Rungs 3 and 4 of the debug ladder, on the first batch and the first steps of a run; does nothing without a
    report.

    A failed check stops the run with LadderError.
    """

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, report: Report | None, total: int, *, fresh: bool
    ) -> None:
        self._module, self._report = module, report
        self._fresh, self._resumed = fresh, False
        self._watch = (
            GradientMonitor(module, optimizer, steps=min(_WATCHED_STEPS, total)) if report is not None else None
        )
        self._losses: list[float] = []
        self._slope_at = min(_SLOPE_STEPS, total)
        self._begun = False

    def begin(self, first: int) -> None:
        """A run that goes on after step `first` has no first loss that no step has touched, which tiny_loss and
        slope go by.
        """
        self._resumed = first > 0

    def before_first(self, loss: Callable[[], Tensor]) -> None:
        """Look at the first loss."""
        if self._report is not None and not self._begun:
            self._report.extend(
                check_loss(loss, self._module.named_parameters(), fresh=self._fresh and not self._resumed)
            )
            self._report.raise_if_failed("loss")
        self._begun = True

    def before_update(self) -> None:
        """Look at the gradients."""
        if self._watch is not None:
            self._watch.before()

    def after_update(self, loss: float) -> None:
        """Look at what the step did."""
        if self._report is None or self._watch is None:
            return
        watching = self._watch.active
        self._watch.after()
        if watching and not self._watch.active:
            self._report.extend(check_gradient(self._watch))
            self._report.raise_if_failed("gradient")
        self._losses.append(loss)
        if not self._resumed and len(self._losses) == self._slope_at >= _LEAST_SLOPE_STEPS:
            self._report.add(check_slope(self._losses))
            self._report.raise_if_failed("loss")


class _MetricEvents:
    """Counts and times steps, and tells the events how it goes."""

    def __init__(self, total: int, events: Events) -> None:
        self._total, self._events = total, events
        self._every = max(total // _MOST_METRICS, 1)
        self._losses: list[float] = []
        self._untold = self._examples = self._tokens = 0
        self._began = time.monotonic()
        self._first = 0

    @property
    def recent(self) -> float:
        """The mean loss of the last steps."""
        last = self._losses[-20:]
        return sum(last) / max(len(last), 1)

    def begin(self, first: int, tokens: int) -> None:
        """`tokens` were read in the steps up to `first`, by earlier attempts."""
        self._first, self._tokens, self._began = first, tokens, time.monotonic()

    def step(self, step: int, loss: float, rate: float, batch: Batch) -> None:
        self._losses.append(loss)
        self._untold += 1
        self._examples += len(batch)
        self._tokens += batch.tokens
        if step % self._every and step != self._total:
            return
        seconds = max(time.monotonic() - self._began, 1e-9)
        data = {
            "step": step,
            "total_steps": self._total,
            "loss": sum(self._losses[-self._untold :]) / self._untold,
            "learning_rate": rate,
            "examples_per_s": self._examples / seconds,
            "eta_s": seconds / (step - self._first) * (self._total - step),
        }
        self._untold = 0
        self._events({"type": "metrics", "data": data})

    def fitted(self, first: int) -> TrainingRun:
        return TrainingRun(len(self._losses), first, tuple(self._losses), self._tokens, time.monotonic() - self._began)


def learning_rate(settings: TunerSettings, step: int, total: int) -> float:
    """The rate of step 1 … total: a linear rise over the warm-up, then constant, a line to 0, or half a cosine to 0."""
    rising = round(settings.warmup * total)
    if step <= rising:
        return settings.learning_rate * step / rising
    # The last step still learns: 0 would be reached one step after it.
    gone = (step - rising - 1) / max(total - rising, 1)
    factor = {"constant": 1.0, "linear": 1.0 - gone, "cosine": 0.5 * (1.0 + math.cos(math.pi * gone))}[
        settings.schedule
    ]
    return settings.learning_rate * factor


def loader_workers(device: torch.device, cores: int) -> int:
    """Processes that tokenise ahead: none on a CPU, where they would take the cores that train, else a quarter of
    the cores up to 4.
    """
    return 0 if device.type == "cpu" else min(cores // 4, 4)


def fingerprint(*parts: object) -> str:
    """A digest that tells one run's inputs from another's."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def _optimizer(module: nn.Module, settings: TunerSettings, placement: Placement) -> torch.optim.Optimizer:
    """Over what trains; biases and norms are not decayed."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise TrainingError("nothing_trains", "every parameter of the model is frozen", f"{PARAM}.mode")
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=settings.learning_rate)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=placement.device.type in ("cpu", "cuda"))


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}".encode()).digest()[:8], "big") >> 1


@contextmanager
def _reproducible(placement: Placement) -> Iterator[None]:
    """Deterministic kernels where a GPU would choose others, and the caller's generator left as it was."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    devices = [placement.device] if placement.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        if devices:
            # cuBLAS is deterministic only with a fixed workspace, and reads of it nowhere else.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come. Off the main thread nobody can listen, and it never has.

    The handler may be interrupted by the next signal, so it takes no lock, as setting an event would.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)
