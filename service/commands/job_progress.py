"""The progress of a job: one line that renews itself on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from service.client.job_answers import JobEvent
from service.commands.screen import Screen, safe

_LEVELS = {"warn": "yellow", "error": "red"}
_LINE_EVERY_S = 10.0


class JobProgress:
    """Shows events on standard error, so that nothing mixes with JSON on standard output."""

    def __init__(self, screen: Screen, job: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen, self._clock, self._shown_at = screen, clock, float("-inf")
        self._bar: Progress | None = None
        if screen.err.is_terminal:
            step = TextColumn("{task.fields[step]}", markup=False)
            columns = (SpinnerColumn(), TextColumn(job, markup=False), BarColumn(), step, TimeElapsedColumn())
            self._bar = Progress(*columns, console=screen.err, transient=True)
            self._task = self._bar.add_task("", total=None, step="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: JobEvent) -> None:
        """Print a message above the bar, or move the bar."""
        if event.type == "message":
            self._screen.err.print(safe(event.message, _LEVELS.get(event.level, "")))
        elif self._bar is not None:
            data = event.data or {}
            self._bar.update(self._task, completed=data.get("step"), total=data.get("total_steps"), step=_step(data))
        elif self._clock() - self._shown_at >= _LINE_EVERY_S:
            self._shown_at = self._clock()
            self._screen.note(_step(event.data or {}))


def _step(data: dict[str, Any]) -> str:
    """Step, loss and time left, as far as they are known."""
    parts = [f"step {data.get('step')}/{data.get('total_steps')}"]
    if isinstance(loss := data.get("loss"), int | float):
        parts.append(f"loss {loss:.4f}")
    if isinstance(left := data.get("eta_s"), int | float):
        parts.append(f"{left:.0f} s left")
    return "  ".join(parts)
