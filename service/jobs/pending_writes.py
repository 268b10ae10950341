"""What a training process reported and the database has not got yet."""

from __future__ import annotations

import time
from collections.abc import Iterable

from service.errors import Unavailable
from service.jobs.progress import ProgressDisplay
from service.jobs.records import Checkpoint, Job, JobEvent, Status
from service.jobs.store import JobStore
from service.jobs.trainer_output import Message

_RETRY_S = 0.1


class PendingWrites:
    """Keeps an attempt's messages while the database is away, so that a short outage loses none."""

    def __init__(self, store: JobStore, job: Job, progress: ProgressDisplay) -> None:
        self._store = store
        self._job = job
        self._progress = progress
        self._events: list[JobEvent] = []
        self._checkpoints: list[Checkpoint] = []
        self._status: Status | None = None

    def write(self, messages: Iterable[Message], patience_s: float = 0.0) -> None:
        """Add messages and write all, retrying for `patience_s`. Raises LeaseLost."""
        for message in messages:
            self._add(message)
        deadline = time.monotonic() + patience_s
        while self._events or self._checkpoints or self._status:
            try:
                self._store.record(self._job, events=self._events, checkpoints=self._checkpoints, status=self._status)
                self._events, self._checkpoints, self._status = [], [], None
            except Unavailable:
                if time.monotonic() >= deadline:
                    return
                time.sleep(_RETRY_S)

    def _add(self, message: Message) -> None:
        if isinstance(message, JobEvent):
            self._progress.show(self._job, message)
            self._events.append(message)
        elif isinstance(message, Checkpoint):
            self._checkpoints.append(message)
        else:
            self._status = message
