"""The queue of one engine: callers add requests, runners take batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from models.preemption import PreemptionFlag
from service.engine.request import Request
from service.engine.scheduler import BatchLimits, QueuedItem, Scheduler
from service.errors import DeadlineExceeded
from service.metrics import Metrics

# Work worth one more runner: this many tokens, or fewer that take a slow model this long. Less work is done sooner in
# one batch with what comes next: a small batch takes nearly as long as a larger one, and its processor is missing to
# the batch beside it and to the threads that speak HTTP (benchmarks/NOTES.md).
_RUNNER_TOKENS, _RUNNER_S = 128, 0.015


class Queue:
    """A thread-safe scheduler. Requests past their deadline end uncomputed.

    `urgent` is up while an interactive request waits. The runners keep `token_s`, the seconds that one token takes.
    """

    def __init__(
        self, name: str, limits: BatchLimits, metrics: Metrics, clock: Callable[[], float], runners: int
    ) -> None:
        self._runners = runners
        self._queue_wait = metrics.queue_wait.labels(name)
        self._clock = clock
        self._scheduler = scheduler = Scheduler(limits)
        metrics.queue_items.labels(name).set_function(lambda: scheduler.items)
        metrics.queue_tokens.labels(name).set_function(lambda: scheduler.tokens)
        self._lock = threading.Lock()
        self._idle: list[threading.Condition] = []  # one for each idle runner; the last one is woken first
        self.urgent: PreemptionFlag = np.array([False])
        self.token_s = 0.0
        self.closed = False

    @property
    def waiting(self) -> tuple[int, int]:
        """Items and tokens in the queue."""
        return self._scheduler.items, self._scheduler.tokens

    @property
    def idle_runners(self) -> int:
        """How many runners wait for work."""
        return len(self._idle)

    def add(self, request: Request, indices: list[int], *, wake: bool = True) -> bool:
        """Queue the items at `indices`, and `wake` a runner for them; False when the queue is closed."""
        with self._lock:
            if self.closed:
                return False
            self._scheduler.add(request, indices)
            self._mark_urgent()
            if wake:
                self._wake_for_work()
        return True

    def remove(self, request: Request) -> int:
        """Take a request out; return how many of its items were still waiting."""
        with self._lock:
            waiting = self._scheduler.remove(request)
            self._mark_urgent()
        return waiting

    def take(self, *, first: bool = True) -> list[QueuedItem] | None:
        """Wait for a batch; None once closed. A runner that waits as `first` is served first."""
        with self._lock:
            while not self.closed:
                others_computing = self._runners - len(self._idle) - 1
                if self._has_work_beside(others_computing) and (batch := self._next_batch()):
                    return batch
                self._wait_for_work(first)
        return None

    def take_urgent(self) -> list[QueuedItem]:
        """A batch of interactive requests; empty when none waits."""
        with self._lock:
            return self._next_batch(interactive_only=True)

    def close(self) -> None:
        """Give out nothing more."""
        with self._lock:
            self.closed = True
            while self._idle:
                self._idle.pop().notify()

    def drain(self) -> list[Request]:
        """Forget everything; return the requests that were waiting."""
        with self._lock:
            waiting = self._scheduler.drain()
            self._mark_urgent()
        return waiting

    def _next_batch(self, *, interactive_only: bool = False) -> list[QueuedItem]:
        self._expire()
        batch = self._scheduler.next_batch(interactive_only=interactive_only, most_tokens=self._fair_share())
        self._mark_urgent()
        self._mark_started(batch)
        self._wake_for_work()
        return batch

    def _fair_share(self) -> int:
        """Tokens of one runner when all idle runners that are worth it take equal shares."""
        runners = max(min(1 + len(self._idle), self._runners_worth()), 1)
        return -(-self._scheduler.tokens // runners)

    def _has_work_beside(self, computing: int) -> bool:
        """Whether the work is worth one more runner; any work is while none computes."""
        return self._runners_worth() > 0 or (self._scheduler.items > 0 and computing == 0)

    def _runners_worth(self) -> int:
        """How many runners the waiting work is worth."""
        tokens = self._scheduler.tokens
        return int(max(tokens / _RUNNER_TOKENS, tokens * self.token_s / _RUNNER_S))

    def _wake_for_work(self) -> None:
        """Wake one idle runner if the work is worth it. That one wakes the next."""
        if self._idle and self._has_work_beside(computing=self._runners - len(self._idle)):
            self._idle.pop().notify()

    def _wait_for_work(self, first: bool) -> None:
        wakeup = threading.Condition(self._lock)
        self._idle.insert(len(self._idle) if first else 0, wakeup)
        wakeup.wait()

    def _expire(self) -> None:
        for request in self._scheduler.expired(self._clock()):
            self._scheduler.remove(request)
            request.fail(DeadlineExceeded("the request's time ran out in the queue"))

    def _mark_started(self, batch: Sequence[QueuedItem]) -> None:
        now = self._clock()
        for request, _ in batch:
            if request.started is None:
                request.started = now
                self._queue_wait.observe(now - request.submitted)

    def _mark_urgent(self) -> None:
        self.urgent[0] = self._scheduler.interactive_items > 0
