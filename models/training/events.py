"""Events of a training process: JSON lines on a stream."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Literal, TextIO

Events = Callable[[Mapping[str, object]], None]
Level = Literal["info", "warn", "error"]


def json_lines(stream: TextIO) -> Events:
    """Events as JSON lines, flushed at once so that the worker reads them immediately."""

    def emit(event: Mapping[str, object]) -> None:
        stream.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()

    return emit


def emit(events: Events, message: str, level: Level = "info") -> None:
    """A message for the job's event list."""
    events({"type": "message", "level": level, "message": message})


def phase(events: Events, name: Literal["validating_files", "running"]) -> None:
    """Set the job's status from here on."""
    events({"type": "phase", "phase": name})


class ProgressEvents:
    """Metrics events of work with known steps: one per `interval_s`, and one at the end."""

    def __init__(
        self, events: Events, total_steps: int, *, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._events = events
        self._total = total_steps
        self._interval_s = interval_s
        self._clock = clock
        self._began = self._emitted = clock()
        self._examples = 0

    def __call__(self, step: int, examples: int) -> None:
        """Step number `step` is done, with `examples` more rows; it has no loss."""
        self._examples += examples
        now = self._clock()
        if step < self._total and now - self._emitted < self._interval_s:
            return
        self._emitted = now
        spent = max(now - self._began, 1e-9)
        data = {
            "step": step,
            "total_steps": self._total,
            "loss": None,
            "learning_rate": None,
            "examples_per_s": round(self._examples / spent, 2),
            "eta_s": round(spent / max(step, 1) * (self._total - step), 2),
        }
        self._events({"type": "metrics", "data": data})
