"""The queue of one engine: what callers put in, runners take out in batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from models.preemption import new_flag
from service.engine.request import Request
from service.engine.scheduler import BatchLimits, Scheduler, Slot
from service.errors import DeadlineExceeded
from service.metrics import Metrics

# So much work is worth another runner beside those that compute: so many tokens, or fewer that take a slow model so
# long. Less is sooner done together with what comes next: a small batch takes nearly as long as a larger one, and the
# processor from the one beside it and from the threads that speak HTTP (docs/performance.md).
_WORTH_TOKENS, _WORTH_S = 128, 0.015


class Queue:
    """A scheduler between threads. Requests whose time runs out in it end with DeadlineExceeded, uncomputed.

    The flag `urgent` is up while an interactive request waits. `token_s` is to be about how long a runner takes for
    a token.
    """

    def __init__(
        self, name: str, limits: BatchLimits, metrics: Metrics, clock: Callable[[], float], runners: int
    ) -> None:
        self._name = name
        self._runners = runners
        self._metrics = metrics
        self._clock = clock
        self._scheduler = Scheduler(limits)
        self._lock = threading.Lock()
        self._resting: list[threading.Condition] = []
        self.urgent = new_flag()
        self.token_s = 0.0
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
            self._share()
        return True

    def remove(self, request: Request) -> int:
        """Take a request out; return how many of its items were still waiting."""
        with self._lock:
            waiting = self._scheduler.remove(request)
            self._report()
        return waiting

    def take(self, *, first: bool = True) -> list[Slot] | None:
        """Wait for work and take a batch of it, a fair share where others wait as well; None once the queue is closed.

        Little work is left for those that compute already. Those that wait as `first` are served before others.
        """
        with self._lock:
            while not self.closed:
                if self._needs_another(computing=self._runners - len(self._resting) - 1) and (batch := self._next()):
                    return batch
                self._wait(first)
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
        sharers = max(min(1 + len(self._resting), self._runners_needed()), 1)
        share = -(-self._scheduler.tokens // sharers)
        batch = self._scheduler.next_batch(interactive_only=urgent, most_tokens=share)
        self._report()
        self._mark_started(batch)
        self._share()
        return batch

    def _share(self) -> None:
        """Wake who waits for work, where there is enough of it."""
        if self._needs_another(computing=self._runners - len(self._resting)):
            self._wake()

    def _needs_another(self, computing: int) -> bool:
        return self._runners_needed() > 0 or (self._scheduler.items > 0 and computing == 0)

    def _runners_needed(self) -> int:
        """How many runners what waits is worth."""
        tokens = self._scheduler.tokens
        return int(max(tokens / _WORTH_TOKENS, tokens * self.token_s / _WORTH_S))

    def _wait(self, first: bool) -> None:
        wakeup = threading.Condition(self._lock)
        self._resting.insert(len(self._resting) if first else 0, wakeup)
        wakeup.wait()

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
