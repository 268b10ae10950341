"""A runner: a thread that takes batches, runs them, and completes their requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import DeviceLost, ModelOutOfMemory, SondeError
from models.preemption import NO_PREEMPTION, Preemption, PreemptionFlag
from service.engine.cache import RowCache
from service.engine.request import Item, Request
from service.engine.scheduler import BatchLimits, Queue, QueuedItem
from service.errors import BackendError, InvalidOutput
from service.metrics import Metrics

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT", bound=Item)
ItemT_contra = TypeVar("ItemT_contra", bound=Item, contravariant=True)
Row = NDArray[np.float32]
# Weight of the newest batch in the running estimates.
_SMOOTHING = 0.1
# Interactive requests that take less to compute, on average, leave a processor to the HTTP threads, which take about as
# long.
_WORTH_ALL_THREADS_S = 0.002
# An interactive batch that takes no longer does not wait for room on the device, where it may.
_SHORT_S = 0.01


class Backend(Protocol[ItemT_contra]):
    """What computes. On a device with several runners, several threads call it at once."""

    def forward(self, batch: Sequence[ItemT_contra], preempt: Preemption) -> Row:
        """Compute a float32 row [width] per item. `preempt`, between layers, may call forward."""
        ...


class Device(Protocol):
    """What batches run on: room for `runners` of them, and threads. Engines may share it."""

    runners: int
    busy: int

    def computing(self, *, alone: bool = True, short: bool = False) -> AbstractContextManager[Preemption]:
        """Hold room for a batch, which calls the preemption between its layers. A short one may need none."""
        ...

    def preparing(self) -> AbstractContextManager[object]:
        """Prepare a batch with one runner's share of the threads, without holding room."""
        ...

    def sharing(self) -> AbstractContextManager[object]:
        """Compute with one runner's share of the threads, without holding room."""
        ...


@dataclass(slots=True)
class RunnerContext(Generic[ItemT]):
    """What the runners of one engine share.

    `tokens_per_s` and `request_s` are running estimates over all of them; `request_s` is the time to compute an
    interactive request: its share of a batch's time.
    """

    name: str
    version: str
    backend: Backend[ItemT]
    width: int
    queue: Queue
    cache: RowCache
    metrics: Metrics
    device: Device
    clock: Callable[[], float]
    limits: BatchLimits
    tokens_per_s: float = field(default=0.0, init=False)
    request_s: float = field(default=0.0, init=False)

    @property
    def key(self) -> str:
        """The model's key in the cache."""
        return f"{self.name}:{self.version}"

    def fill_from_cache(self, request: Request, indices: Sequence[int]) -> list[int]:
        """Fill in the rows at `indices` that are in the cache; return the other indices."""
        if not self.cache.on:
            return list(indices)
        found = self.cache.get_many(self.key, [request.items[index].key for index in indices])
        rows = dict(zip(indices, found, strict=True))
        missing = [index for index, row in rows.items() if row is None]
        self.metrics.cache_hits.labels(self.name).inc(len(rows) - len(missing))
        self.metrics.cache_misses.labels(self.name).inc(len(missing))
        for index, row in rows.items():
            if row is not None:
                request.fill(index, row)
        return missing


class Runner(Generic[ItemT]):
    """One of an engine's threads. Its loop is: take a batch, run it, complete its requests.

    Interactive requests overtake a bulk batch between two of its layers, and between two of its items while these are
    prepared, so they never wait for all of it. A batch is overtaken by no more tokens than it has itself, each time.
    """

    def __init__(
        self, context: RunnerContext[ItemT], number: int, on_failure: Callable[[Exception, list[Request]], None]
    ) -> None:
        self._context = context
        self._on_failure = on_failure
        self._number = number
        self._in_hand: list[QueuedItem] = []
        self._overtaking_s = 0.0
        self._thread = threading.Thread(target=self._loop, name=f"engine-{context.name}-{number}", daemon=True)

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for its end, if it was started."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def compute_waiting(self, most_tokens: int) -> bool:
        """Compute a batch of interactive requests in the calling thread, which must not wait for room.

        False where there is none.
        """
        batch: list[QueuedItem] = []
        try:
            with self._context.device.sharing():
                if batch := self._context.queue.take_some(most_tokens):
                    self._complete(batch, self._run(batch, NO_PREEMPTION))
        except Exception as error:  # as in a thread of its own
            self._on_failure(error, [request for request, _ in self._in_hand])
        return bool(batch)

    def _loop(self) -> None:
        queue = self._context.queue
        try:
            while (batch := queue.take(self._number)) is not None:
                if batch := self._prepared(batch, self._context.device.preparing):
                    self._compute(batch, alone=self._wants_all_threads())
        except Exception as error:  # the thread's edge: a dead runner must fail the engine, or its requests hang
            self._on_failure(error, [request for request, _ in self._in_hand])

    def _compute(self, batch: list[QueuedItem], *, alone: bool) -> None:
        """Run a batch once there is room for it, and complete its requests."""
        with self._context.device.computing(alone=alone, short=self._is_short(batch)) as yield_threads:
            outcomes = self._run(batch, yield_threads)
        self._complete(batch, outcomes)

    def _is_short(self, batch: list[QueuedItem]) -> bool:
        seconds = _tokens(batch) * self._context.queue.token_s
        return batch[0][0].interactive and 0 < seconds <= _SHORT_S

    def _prepared(
        self, batch: list[QueuedItem], preparing: Callable[[], AbstractContextManager[object]]
    ) -> list[QueuedItem]:
        """The items that are left to compute, ready for it; others have their row or their error.

        Each is prepared in `preparing`. That of the device takes no room, so that other engines compute meanwhile.
        """
        if not any(request.is_unprepared for request, _ in batch):
            return batch
        preempt = self._preemption(batch, NO_PREEMPTION, self._overtake_preparing)
        ready: list[QueuedItem] = []
        self._in_hand.extend(batch)
        for queued in batch:
            preempt()
            with preparing():
                if not queued[0].is_unprepared or self._prepare(*queued):
                    ready.append(queued)
        self._release(batch)
        return [queued for queued in ready if not queued[0].finished]  # a later item may have failed its request

    def _prepare(self, request: Request, index: int) -> bool:
        """Prepare an item, unless its request has ended or its row is in the cache."""
        if request.finished:
            return False
        try:
            if not self._context.fill_from_cache(request, [index]):
                return False
            request.prepare(index)
        except Exception as error:
            if not isinstance(error, SondeError):
                log.exception("an input could not be prepared", extra={"model": self._context.name})
                error = BackendError("this input could not be prepared")
            self._context.queue.remove(request)
            request.fail(error)
        return not request.finished

    def _wants_all_threads(self) -> bool:
        """Whether it is the primary runner, others are idle, and requests outlast HTTP's work."""
        context = self._context
        others_idle = context.queue.idle_runners == context.device.runners - 1
        return self._number == 0 and others_idle and not 0 < context.request_s < _WORTH_ALL_THREADS_S

    def _run(self, batch: list[QueuedItem], yield_threads: Preemption) -> list[Row | SondeError]:
        """Compute a row or an error for each slot; equal items are computed once."""
        self._in_hand.extend(batch)
        places: dict[bytes, int] = {}
        unique: list[ItemT] = []
        for request, index in batch:
            item = request.items[index]
            if places.setdefault(item.key, len(unique)) == len(unique):
                unique.append(item)  # type: ignore[arg-type]  # a request holds what submit() was given
        results = self._timed_forward(batch, unique, yield_threads)
        for item, row in zip(unique, results, strict=True):
            if not isinstance(row, SondeError):
                self._context.cache.put(self._context.key, item.key, row)
        return [results[places[request.items[index].key]] for request, index in batch]

    def _timed_forward(
        self, batch: list[QueuedItem], unique: list[ItemT], yield_threads: Preemption
    ) -> list[Row | SondeError]:
        """Compute unique items and record the time, without that of overtaking requests."""
        context, interactive = self._context, batch[0][0].interactive
        preempt = self._preemption(batch, yield_threads, self._overtake)
        overtaking_s, began, processor_began = self._overtaking_s, context.clock(), time.thread_time()
        results = self._forward(unique, preempt)
        processor_s = time.thread_time() - processor_began
        seconds = context.clock() - began - (self._overtaking_s - overtaking_s)
        self._report(unique, len(batch), seconds)
        if self._overtaking_s == overtaking_s:
            context.queue.token_s = _smoothed(context.queue.token_s, processor_s / max(_tokens(batch), 1))
        requests = {request for request, _ in batch}
        for request in requests:
            request.computed(seconds)
        if interactive:
            context.request_s = _smoothed(context.request_s, seconds / len(requests))
        return results

    def _preemption(
        self, batch: list[QueuedItem], yield_threads: Preemption, overtake: Callable[[Preemption], int]
    ) -> Preemption:
        """What a batch calls between its steps."""
        if batch[0][0].interactive:
            return yield_threads
        return _BatchPreemption(yield_threads, self._context.queue.urgent, overtake, _tokens(batch))

    def _overtake_preparing(self, _: Preemption) -> int:
        """Run waiting interactive requests before the next item of a bulk batch is prepared; return their tokens."""
        if batch := self._prepared(self._context.queue.take_urgent(), self._context.device.preparing):
            self._compute(batch, alone=False)
        return _tokens(batch)

    def _overtake(self, yield_threads: Preemption) -> int:
        """Run waiting interactive requests in the middle of a bulk batch; return their tokens."""
        began = self._context.clock()
        # Without `device.preparing`, which would leave the bulk batch a share of its threads.
        if batch := self._prepared(self._context.queue.take_urgent(), nullcontext):
            self._complete(batch, self._run(batch, yield_threads))
        self._overtaking_s += self._context.clock() - began
        return _tokens(batch)

    def _forward(self, items: list[ItemT], preempt: Preemption) -> list[Row | SondeError]:
        """Run items through the backend; after a failure, halve until only the faulty item fails."""
        try:
            return self._validated(items, self._context.backend.forward(items, preempt))
        except DeviceLost:
            raise
        except Exception as error:
            full = isinstance(error, ModelOutOfMemory)
            self._count_fault("out_of_memory" if full else "bisected")
            log.warning("batch of %d failed", len(items), extra={"model": self._context.name}, exc_info=not full)
            if len(items) == 1:
                return [error if isinstance(error, SondeError) else BackendError("the model failed on this input")]
        half = len(items) // 2
        return self._forward(items[:half], preempt) + self._forward(items[half:], preempt)

    def _validated(self, items: list[ItemT], rows: Row) -> list[Row | SondeError]:
        """Refuse a wrong number of rows altogether, and single rows with NaN or infinity."""
        width = self._context.width
        if rows.shape != (len(items), width):
            raise InvalidOutput(f"the model gave shape {list(rows.shape)}, expected [{len(items)}, {width}]")
        if np.isfinite(rows).all():
            return list(rows)
        self._count_fault("invalid_output")
        wrong = InvalidOutput("the model gave NaN or infinity for this input")
        return [row if np.isfinite(row).all() else wrong for row in rows]

    def _complete(self, batch: list[QueuedItem], outcomes: list[Row | SondeError]) -> None:
        """Give each request its row or its error."""
        self._release(batch)
        for (request, index), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, SondeError):
                self._context.queue.remove(request)
                request.fail(outcome)
            else:
                request.fill(index, outcome)

    def _release(self, batch: list[QueuedItem]) -> None:
        """Forget the newest items in hand, which are those of a batch."""
        del self._in_hand[len(self._in_hand) - len(batch) :]

    def _count_fault(self, kind: str) -> None:
        self._context.metrics.batch_faults.labels(self._context.name, kind).inc()

    def _report(self, items: list[ItemT], slots: int, seconds: float) -> None:
        context, name, metrics = self._context, self._context.name, self._context.metrics
        tokens = sum(item.count for item in items)
        padded = context.limits.padded(len(items), tokens, max(item.count for item in items))
        metrics.inference.labels(name).observe(seconds)
        metrics.batch_items.labels(name).observe(len(items))
        metrics.batch_tokens.labels(name).observe(padded)
        metrics.padding.labels(name).observe(1 - tokens / padded if padded else 0.0)
        metrics.tokens.labels(name).inc(tokens)
        metrics.duplicates.labels(name).inc(slots - len(items))
        if seconds > 0:
            tokens_per_s = tokens / seconds * max(context.device.busy, 1)
            context.tokens_per_s = _smoothed(context.tokens_per_s, tokens_per_s)


def _tokens(batch: list[QueuedItem]) -> int:
    return sum(request.items[index].count for request, index in batch)


def _smoothed(estimate: float, newest: float) -> float:
    """The next running estimate; the newest value where there was none (0)."""
    return estimate + _SMOOTHING * (newest - estimate) if estimate else newest


class _BatchPreemption:
    """Lets interactive requests overtake a bulk batch until they had `room` tokens."""

    def __init__(
        self, yield_threads: Preemption, urgent: PreemptionFlag, overtake: Callable[[Preemption], int], room: int
    ) -> None:
        self._yield_threads = yield_threads
        self._urgent = urgent
        self._overtake = overtake
        self._room = room

    @property
    def flags(self) -> Sequence[PreemptionFlag]:
        return (*self._yield_threads.flags, self._urgent) if self._room > 0 else self._yield_threads.flags

    def __call__(self) -> None:
        self._yield_threads()
        if self._room > 0 and self._urgent[0]:
            self._room -= self._overtake(self._yield_threads)
