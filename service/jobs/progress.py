"""The progress of a job on the worker's standard error: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import time
from typing import Any, TextIO

from tqdm import tqdm

from service.jobs.records import Job, JobEvent

log = logging.getLogger("sonde.jobs")

_LOG_EVERY_S = 10.0


class ProgressDisplay:
    """Shows events of one job at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[None] | None = None
        self._logged = 0.0

    def show(self, job: Job, event: JobEvent) -> None:
        """Log a message; move the bar for a step, or log it if the last was 10 s ago."""
        about = {"job": job.id, "attempt": job.attempt}
        if event.type == "message":
            log.info(event.message, extra={**about, "event_level": event.level})
        elif self._stream.isatty():
            self._move_bar(job, event.data or {})
        elif time.monotonic() - self._logged > _LOG_EVERY_S:
            self._logged = time.monotonic()
            log.info("training", extra={**about, **(event.data or {})})

    def end(self) -> None:
        """Close the bar: the attempt is over."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _move_bar(self, job: Job, data: dict[str, Any]) -> None:
        if self._bar is None:
            self._bar = tqdm(desc=job.id, file=self._stream, unit="step", dynamic_ncols=True)
        self._bar.total = data.get("total_steps")
        self._bar.n = data.get("step") or 0
        self._bar.set_postfix({"loss": data.get("loss"), "lr": data.get("learning_rate")}, refresh=True)
