"""What a worker shows of its job: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import time
from typing import TextIO

from tqdm import tqdm

from service.jobs.records import Event, Job

log = logging.getLogger("sonde.jobs")

_LOG_EVERY_S = 10.0


class ProgressDisplay:
    """Shows events of one job at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[None] | None = None
        self._logged = 0.0

    def show(self, job: Job, event: Event) -> None:
        """A step moves the bar; a message is a log line."""
        if event.type == "message":
            log.info(event.message, extra={"job": job.id, "attempt": job.attempt, "event_level": event.level})
        elif self._stream.isatty():
            self._move(job, event)
        elif time.monotonic() - self._logged > _LOG_EVERY_S:
            self._logged = time.monotonic()
            log.info("training", extra={"job": job.id, "attempt": job.attempt, **(event.data or {})})

    def end(self) -> None:
        """The job is over, or another's."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _move(self, job: Job, event: Event) -> None:
        data = event.data or {}
        if self._bar is None:
            self._bar = tqdm(desc=job.id, file=self._stream, unit="step", dynamic_ncols=True)
        self._bar.total = data.get("total_steps")
        self._bar.n = data.get("step") or 0
        self._bar.set_postfix({"loss": data.get("loss"), "lr": data.get("learning_rate")}, refresh=True)
