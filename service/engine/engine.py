"""The engine of one model: a queue, and runners that compute what is in it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic

from models.errors import SondeError
from service.engine.cache import RowCache
from service.engine.request import Request
from service.engine.runner import Backend, Device, ItemT, Runner, RunnerContext
from service.engine.scheduler import BatchLimits, Queue
from service.errors import Unavailable
from service.metrics import Metrics

log = logging.getLogger(__name__)

# The event loop computes after this number of turns without another request. Turns in which nothing comes take
# microseconds, a batch hardly takes longer than one request, and over gRPC the parts of requests come in turns of
# their own.
_QUIET_TURNS = 8
# More work than this waits for threads.
_MOST_BATCHES = 8
_LOST = "the device is lost; the service restarts"


class Engine(Generic[ItemT]):
    """Batches items of many callers through one backend, a runner per place on the device.

    Engines on one device share its places. Runners end at `close`, or by themselves when the device is lost: then
    `failure` has the reason and the engine has called `on_failure`.

    With `loop_tokens`, the event loop that calls `submit` computes requests of no more tokens itself, in batches of
    about as many, as long as few batches wait. A thread would take longer to get Python's lock than to compute.

    With `prepares`, it takes items that are `Unprepared`, and its runners prepare them.
    """

    def __init__(
        self,
        name: str,
        version: str,
        backend: Backend[ItemT],
        width: int,
        *,
        limits: BatchLimits,
        cache: RowCache,
        metrics: Metrics,
        device: Device,
        clock: Callable[[], float] = time.monotonic,
        on_failure: Callable[[Exception], None] = lambda error: None,
        loop_tokens: int = 0,
        prepares: bool = False,
    ) -> None:
        self.name = name
        self.prepares = prepares
        self.width = width
        self.failure: Exception | None = None
        self._clock = clock
        self._on_failure = on_failure
        self._failing = threading.Lock()
        self._queue = Queue(name, limits, metrics, clock, device.runners)
        self._context = RunnerContext(name, version, backend, width, self._queue, cache, metrics, device, clock, limits)
        self._runners = [Runner(self._context, number, self._fail) for number in range(device.runners)]
        self._loop_tokens = loop_tokens
        self._loop_runner = Runner(self._context, device.runners, self._fail)
        self._loop_is_due = False
        self._quiet_turns = self._seen_waiting = 0
        metrics.announce(name)

    def start(self) -> None:
        """Start the runners."""
        for runner in self._runners:
            runner.start()

    def submit(
        self,
        items: Sequence[ItemT],
        *,
        client: str = "",
        deadline: float | None = None,
        patience_s: float | None = None,
        bulk: bool = False,
    ) -> Request:
        """Queue items that are not in the cache. Raises Unavailable when the engine has ended.

        With `patience_s`, the deadline moves to that long after each batch of the request. A `bulk` request is never
        interactive, however small it is.
        """
        request = Request(
            items, self.width, client=client, deadline=deadline, patience_s=patience_s, bulk=bulk, clock=self._clock
        )
        everything = range(len(request.items))
        missing = list(everything) if request.is_unprepared else self._context.fill_from_cache(request, everything)
        if not missing:
            return request
        on_loop = self._fits_loop(request)
        if not self._queue.add(request, missing, wake=not on_loop):
            raise Unavailable(_LOST, retry_after_s=10) if self.failure else Unavailable("the service is shutting down")
        if on_loop and not self._loop_is_due:
            self._loop_is_due = True
            asyncio.get_running_loop().call_soon(self._compute_on_loop)
        return request

    def cancel(self, request: Request, error: SondeError) -> int:
        """End a request with an error; return how many of its items are never computed."""
        waiting = self._queue.remove(request)
        request.fail(error)
        return waiting

    @property
    def waiting(self) -> tuple[int, int]:
        """Items and tokens in the queue."""
        return self._queue.waiting

    @property
    def tokens_per_s(self) -> float:
        """Recent speed; 0 before the first batch."""
        return self._context.tokens_per_s

    def close(self) -> None:
        """Stop after the batches in progress; requests that still wait get Unavailable."""
        self._queue.close()
        self.join()
        self._abandon(Unavailable("the service is shutting down"))

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the end of all runners."""
        for runner in self._runners:
            runner.join(timeout_s)

    def _fits_loop(self, request: Request) -> bool:
        """Whether the event loop computes a request. Others wake threads."""
        if not self._loop_tokens or request.bulk:
            return False
        tokens = sum(item.count for item in request.items)
        return tokens <= self._loop_tokens and self._queue.waiting[1] + tokens <= _MOST_BATCHES * self._loop_tokens

    def _compute_on_loop(self) -> None:
        """Compute a batch of what waits, once it is full or nothing has come for some turns."""
        items, tokens = self._queue.waiting
        self._quiet_turns = self._quiet_turns + 1 if items == self._seen_waiting else 0
        self._seen_waiting = items
        left_to_runners = False  # where items too large for the loop are all that it finds
        if tokens >= self._loop_tokens or self._quiet_turns >= _QUIET_TURNS:
            left_to_runners = not self._loop_runner.compute_waiting(self._loop_tokens)
            self._seen_waiting = 0
        self._loop_is_due = bool(self._queue.urgent[0]) and not left_to_runners
        if self._loop_is_due:
            asyncio.get_running_loop().call_soon(self._compute_on_loop)

    def _fail(self, error: Exception, in_hand: list[Request]) -> None:
        """End the engine after a lost device or a fault of its own; fail all its requests.

        Each runner that fails passes its own requests in hand. The first one's reason is kept and reported.
        """
        with self._failing:
            first = self.failure is None
            self.failure = self.failure or error
        if first:
            log.critical("engine ended", extra={"model": self.name}, exc_info=error)
        self._queue.close()
        self._abandon(Unavailable(_LOST, retry_after_s=10), in_hand)
        if first:
            self._on_failure(error)

    def _abandon(self, error: SondeError, others: Sequence[Request] = ()) -> None:
        for request in [*others, *self._queue.drain()]:
            request.fail(error)
