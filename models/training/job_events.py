"""Events of a training process: JSON lines on a stream."""

from __future__ import annotations

import json
import threading
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


def set_phase(events: Events, name: Literal["validating_files", "running"]) -> None:
    """Set the job's status from here on."""
    events({"type": "phase", "phase": name})


class Heartbeat:
    """Passes events on, and says that the work goes on after each `silence_s` without one.

    As a context it watches from a thread of its own.
    """

    def __init__(self, events: Events, *, silence_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._events, self._silence_s, self._clock = events, silence_s, clock
        self._last = self._message_at = clock()
        self._doing = "the start"
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def __call__(self, event: Mapping[str, object]) -> None:
        """Pass an event on."""
        with self._lock:
            self._events(event)
            self._last = self._clock()
            if event["type"] == "message":
                self._doing, self._message_at = str(event["message"]), self._last

    def beat(self) -> None:
        """Emit a message if nothing came for too long."""
        with self._lock:
            now = self._clock()
            if now - self._last >= self._silence_s:
                self._last = now
                emit(self._events, f"still at work, {now - self._message_at:.0f} s after: {self._doing}")

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            self.beat()


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
