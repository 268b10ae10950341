"""The queue of one engine: what callers put in, runners take out in batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from models.between import flag
from service.engine.request import Request
from service.engine.scheduler import BatchLimits, Scheduler, Slot
from service.errors import DeadlineExceeded
from service.metrics import Metrics

# A batch is not made smaller than this, in tokens, to have something left for a runner that is idle.
_WORTH_SHARING = 64


class Queue:
    """A scheduler between threads. Requests whose time runs out in it end with DeadlineExceeded, uncomputed.

    The flag `urgent` is up while an interactive request waits.
    """

    def __init__(self, name: str, limits: BatchLimits, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._name = name
        self._metrics = metrics
        self._clock = clock
        self._scheduler = Scheduler(limits)
        self._lock = threading.Lock()
        self._resting: list[threading.Condition] = []
        self.urgent = flag()
        self.closed = False

    @property
    def waiting(self) -> tuple[int, int]:
        """Items and tokens in the queue."""
        return self._scheduler.items, self._scheduler.tokens

    @property
    def resting(self) -> int:
        """How many runners wait for work."""
        return len(self._resting)

    def add(self, request: Request, indices: list[int]) -> bool:
        """Queue the items at `indices`; False when the queue is closed."""
        with self._lock:
            if self.closed:
                return False
            self._scheduler.add(request, indices)
            self._report()
            self._wake()
        return True

    def remove(self, request: Request) -> int:
        """Take a request out; return how many of its items were still waiting."""
        with self._lock:
            waiting = self._scheduler.remove(request)
            self._report()
        return waiting

    def take(self, *, first: bool = True) -> list[Slot] | None:
        """Wait for work and take a batch of it, a fair share where others wait as well; None once the queue is closed.

        Those that wait as `first` are served before others.
        """
        with self._lock:
            while not self.closed:
                if batch := self._next():
                    return batch
                self._rest(first)
        return None

    def take_urgent(self) -> list[Slot]:
        """A batch of what interactive callers wait for; empty when none does."""
        with self._lock:
            return self._next(urgent=True)

    def close(self) -> None:
        """Give out nothing more."""
        with self._lock:
            self.closed = True
            while self._resting:
                self._wake()

    def drain(self) -> list[Request]:
        """Forget everything; return the requests that were waiting."""
        with self._lock:
            waiting = self._scheduler.drain()
            self._report()
        return waiting

    def _next(self, *, urgent: bool = False) -> list[Slot]:
        self._expire()
        share = max(-(-self._scheduler.tokens // (1 + len(self._resting))), _WORTH_SHARING)
        batch = self._scheduler.next_batch(interactive_only=urgent, most_tokens=share)
        self._report()
        self._mark_started(batch)
        if self._scheduler.items:
            self._wake()
        return batch

    def _rest(self, first: bool) -> None:
        bell = threading.Condition(self._lock)
        self._resting.insert(len(self._resting) if first else 0, bell)
        bell.wait()

    def _wake(self) -> None:
        if self._resting:
            self._resting.pop().notify()

    def _expire(self) -> None:
        for request in self._scheduler.expired(self._clock()):
            self._scheduler.remove(request)
            request.fail(DeadlineExceeded("the request's time ran out in the queue"))

    def _mark_started(self, batch: Sequence[Slot]) -> None:
        now = self._clock()
        for request, _ in batch:
            if request.started is None:
                request.started = now
                self._metrics.queue_wait.labels(self._name).observe(now - request.submitted)

    def _report(self) -> None:
        self.urgent[0] = self._scheduler.interactive_items > 0
        self._metrics.queue_items.labels(self._name).set(self._scheduler.items)
        self._metrics.queue_tokens.labels(self._name).set(self._scheduler.tokens)
