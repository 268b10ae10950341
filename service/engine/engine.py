"""The engine of one model: a queue, a thread, and three verbs: take, compute, settle."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import DeviceLost, ModelOutOfMemory, SondeError
from service.engine.cache import RowCache
from service.engine.request import Item, Request
from service.engine.scheduler import BatchLimits, Scheduler, Slot
from service.errors import BackendError, DeadlineExceeded, InvalidOutput, Unavailable
from service.metrics import Metrics

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT", bound=Item)
ItemT_contra = TypeVar("ItemT_contra", bound=Item, contravariant=True)
Row = NDArray[np.float32]
# How much the newest batch counts in the running estimate of tokens a second.
_SPEED_SMOOTHING = 0.1


class Backend(Protocol[ItemT_contra]):
    """What computes."""

    def forward(self, batch: Sequence[ItemT_contra], between: Callable[[], None]) -> Row:
        """One float32 row [width] per item, in order. `between` is to be called now and then; it may call forward again."""
        ...


class Engine(Generic[ItemT]):
    """Batches items of many callers through one backend.

    Interactive requests overtake a bulk batch between two of its layers, so they never wait for all of it; in return such
    a batch is overtaken by no more tokens than it has itself.

    `device` is held while computing, so that engines that share a device take turns. The thread ends with `close`, or by
    itself when the device is lost; `failure` then says why and `on_failure` has been called.
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
        device: AbstractContextManager[object],
        clock: Callable[[], float] = time.monotonic,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.name = name
        self.width = width
        self.failure: Exception | None = None
        self.tokens_per_s = 0.0
        self._version = f"{name}:{version}"
        self._backend = backend
        self._cache = cache
        self._metrics = metrics
        self._device = device
        self._clock = clock
        self._on_failure = on_failure
        self._scheduler = Scheduler(limits)
        self._wake = threading.Condition()
        self._closed = False
        self._in_hand: list[Slot] = []
        self._overtaking_s = 0.0
        self._thread = threading.Thread(target=self._loop, name=f"engine-{name}", daemon=True)
        metrics.announce(name)

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def submit(self, items: Sequence[ItemT], *, client: str = "", deadline: float | None = None) -> Request:
        """Queue items; rows found in the cache are filled in at once. Raises Unavailable when the engine has ended."""
        request = Request(items, self.width, client=client, deadline=deadline, submitted=self._clock())
        missing = self._fill_from_cache(request)
        if missing:
            with self._wake:
                self._require_running()
                self._scheduler.add(request, missing)
                self._report_queue()
                self._wake.notify()
        return request

    def cancel(self, request: Request, error: Exception) -> int:
        """Take a request out of the queue; return how many items will now never be computed."""
        with self._wake:
            waiting = self._scheduler.remove(request)
            self._report_queue()
        request.fail(error)
        return waiting

    @property
    def waiting(self) -> tuple[int, int]:
        """Items and tokens in the queue."""
        return self._scheduler.items, self._scheduler.tokens

    def close(self) -> None:
        """Stop after the batch in hand; whoever still waits gets Unavailable."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join()
        self._abandon(Unavailable("the service is shutting down"))

    def _loop(self) -> None:
        while (batch := self._take()) is not None:
            try:
                with self._device:
                    outcomes = self._compute(batch)
                self._settle(batch, outcomes)
            except Exception as error:  # the thread's edge: an engine that stands still must never look like one that runs
                self._die(error)
                return

    def _take(self) -> list[Slot] | None:
        """Wait for work and take a batch of it, after letting go of those whose time is up; None at the end."""
        with self._wake:
            while not self._closed:
                self._expire()
                if batch := self._scheduler.next_batch():
                    self._report_queue()
                    self._mark_started(batch)
                    return batch
                self._wake.wait()
        return None

    def _compute(self, batch: list[Slot]) -> list[Row | SondeError]:
        """A row or an error for each slot; equal items are computed once."""
        self._in_hand.extend(batch)
        places: dict[bytes, int] = {}
        unique: list[ItemT] = []
        for request, index in batch:
            item = request.items[index]
            if places.setdefault(item.key, len(unique)) == len(unique):
                unique.append(item)  # type: ignore[arg-type]  # a request holds what submit() was given
        interactive = batch[0][0].interactive
        between = _nothing if interactive else _Overtakable(self._overtake, sum(item.count for item in unique))
        overtaking_s, began = self._overtaking_s, self._clock()
        results = self._rows(unique, between)
        seconds = self._clock() - began - (self._overtaking_s - overtaking_s)
        self._report_batch(unique, len(batch), seconds)
        for request in {request for request, _ in batch}:
            request.inference_s += seconds
        for item, row in zip(unique, results, strict=True):
            if not isinstance(row, SondeError):
                self._cache.put(self._version, item.key, row)
        return [results[places[request.items[index].key]] for request, index in batch]

    def _overtake(self) -> int:
        """Between two layers of a bulk batch: run what interactive callers wait for; return how many tokens that was."""
        if not self._scheduler.interactive_items:
            return 0
        with self._wake:
            self._expire()
            batch = self._scheduler.next_batch(interactive_only=True)
            self._report_queue()
            self._mark_started(batch)
        if not batch:
            return 0
        began = self._clock()
        self._settle(batch, self._compute(batch))
        self._overtaking_s += self._clock() - began
        return sum(request.items[index].count for request, index in batch)

    def _rows(self, items: list[ItemT], between: Callable[[], None]) -> list[Row | SondeError]:
        """Run items through the backend; when that fails, halve until only the offender fails."""
        try:
            return list(self._checked(items, self._backend.forward(items, between)))
        except DeviceLost:
            raise
        except Exception as error:
            full = isinstance(error, ModelOutOfMemory)
            self._metrics.batch_faults.labels(self.name, "out_of_memory" if full else "bisected").inc()
            log.warning("batch of %d failed", len(items), extra={"model": self.name}, exc_info=not full)
            if len(items) == 1:
                return [error if isinstance(error, SondeError) else BackendError("the model failed on this input")]
        half = len(items) // 2
        return self._rows(items[:half], between) + self._rows(items[half:], between)

    def _checked(self, items: list[ItemT], rows: Row) -> list[Row | SondeError]:
        """Refuse a wrong number of rows altogether, and single rows with NaN or infinity in them."""
        if rows.shape != (len(items), self.width):
            raise InvalidOutput(f"the model gave shape {list(rows.shape)}, expected [{len(items)}, {self.width}]")
        finite = [bool(np.isfinite(row).all()) for row in rows] if not np.isfinite(rows).all() else [True] * len(items)
        if not all(finite):
            self._metrics.batch_faults.labels(self.name, "invalid_output").inc()
        return [
            row if good else InvalidOutput("the model gave NaN or infinity for this input") for row, good in zip(rows, finite, strict=True)
        ]

    def _settle(self, batch: list[Slot], outcomes: list[Row | SondeError]) -> None:
        """Give each caller its row or its error."""
        del self._in_hand[len(self._in_hand) - len(batch) :]
        for (request, index), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, SondeError):
                self.cancel(request, outcome)
            else:
                request.fill(index, outcome)

    def _fill_from_cache(self, request: Request) -> list[int]:
        """Fill in the rows that the cache has; return the indices it does not have."""
        found = self._cache.get_many(self._version, [item.key for item in request.items])
        missing = [index for index, row in enumerate(found) if row is None]
        self._metrics.cache_hits.labels(self.name).inc(len(found) - len(missing))
        self._metrics.cache_misses.labels(self.name).inc(len(missing))
        for index, row in enumerate(found):
            if row is not None:
                request.fill(index, row)
        return missing

    def _expire(self) -> None:
        for request in self._scheduler.expired(self._clock()):
            self._scheduler.remove(request)
            request.fail(DeadlineExceeded("the request's time ran out in the queue"))

    def _mark_started(self, batch: list[Slot]) -> None:
        now = self._clock()
        for request, _ in batch:
            if request.started is None:
                request.started = now
                self._metrics.queue_wait.labels(self.name).observe(now - request.submitted)

    def _report_queue(self) -> None:
        self._metrics.queue_items.labels(self.name).set(self._scheduler.items)
        self._metrics.queue_tokens.labels(self.name).set(self._scheduler.tokens)

    def _report_batch(self, items: list[ItemT], slots: int, seconds: float) -> None:
        tokens = sum(item.count for item in items)
        padded = max(item.count for item in items) * len(items)
        metrics = self._metrics
        metrics.inference.labels(self.name).observe(seconds)
        metrics.batch_items.labels(self.name).observe(len(items))
        metrics.batch_tokens.labels(self.name).observe(padded)
        metrics.padding.labels(self.name).observe(1 - tokens / padded if padded else 0.0)
        metrics.tokens.labels(self.name).inc(tokens)
        metrics.duplicates.labels(self.name).inc(slots - len(items))
        if seconds > 0:
            speed = tokens / seconds
            self.tokens_per_s += _SPEED_SMOOTHING * (speed - self.tokens_per_s) if self.tokens_per_s else speed

    def _require_running(self) -> None:
        if self.failure is not None:
            raise Unavailable("the device is lost; the service restarts", retry_after_s=10)
        if self._closed:
            raise Unavailable("the service is shutting down")

    def _die(self, error: Exception) -> None:
        """The device is gone, or a fault of ours ends the engine: say so to everyone who waits, and to whoever can restart the process."""
        log.critical("engine ended", extra={"model": self.name}, exc_info=error)
        with self._wake:
            self.failure = error
        self._abandon(Unavailable("the device is lost; the service restarts", retry_after_s=10), [request for request, _ in self._in_hand])
        self._on_failure(error)

    def _abandon(self, error: Exception, others: Sequence[Request] = ()) -> None:
        with self._wake:
            waiting = self._scheduler.drain()
            self._report_queue()
        for request in [*others, *waiting]:
            request.fail(error)


class _Overtakable:
    """What a bulk batch calls between its layers, until it has been overtaken by as many tokens as it has itself."""

    def __init__(self, overtake: Callable[[], int], tokens: int) -> None:
        self._overtake = overtake
        self._room = tokens

    def __call__(self) -> None:
        if self._room > 0:
            self._room -= self._overtake()


def _nothing() -> None:
    """What an interactive batch calls between its layers."""
