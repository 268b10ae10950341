"""Progress of a tuning run: losses, rows, tokens and time, as metric events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import fmean

from models.training.job_events import Events
from models.training.tuning.batches import Batch

# The most metric events of a run; each has the mean loss since the last.
_MAX_METRIC_EVENTS = 500
_RECENT_STEPS = 20


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Steps and losses of this attempt; tokens of this and all earlier attempts."""

    steps: int
    resumed_at: int
    losses: tuple[float, ...]
    tokens: int
    seconds: float


class TrainingProgress:
    """Counts and times the steps of a run of `total` steps, and emits metric events."""

    def __init__(self, total: int, events: Events) -> None:
        self._total, self._events = total, events
        self._every = max(total // _MAX_METRIC_EVENTS, 1)
        self._losses: list[float] = []
        self._unreported = self._examples = self._tokens = self._first = 0
        self._started = time.monotonic()

    def begin(self, first: int, tokens: int) -> None:
        """Start the clock after step `first`; earlier attempts read `tokens`."""
        self._first, self._tokens, self._started = first, tokens, time.monotonic()

    def report(self, step: int, loss: float, rate: float, batch: Batch) -> None:
        """Count one step, and emit an event where one is due."""
        self._losses.append(loss)
        self._unreported += 1
        self._examples += len(batch)
        self._tokens += batch.tokens
        if step % self._every == 0 or step == self._total:
            self._emit(step, rate)

    def _emit(self, step: int, rate: float) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        data = {
            "step": step,
            "total_steps": self._total,
            "loss": fmean(self._losses[-self._unreported :]),
            "learning_rate": rate,
            "examples_per_s": self._examples / seconds,
            "eta_s": seconds / (step - self._first) * (self._total - step),
        }
        self._unreported = 0
        self._events({"type": "metrics", "data": data})

    @property
    def recent_loss(self) -> float:
        """The mean loss of the last 20 steps."""
        return fmean(self._losses[-_RECENT_STEPS:])

    def result(self) -> TrainingRun:
        """The run so far."""
        seconds = time.monotonic() - self._started
        return TrainingRun(len(self._losses), self._first, tuple(self._losses), self._tokens, seconds)
