"""A thread that computes: it takes a batch, runs it through the backend, and gives each caller its row or its error."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import DeviceLost, ModelOutOfMemory, SondeError
from models.preemption import Preemption, PreemptionFlag
from service.engine.cache import RowCache
from service.engine.device import ComputeDevice
from service.engine.queue import Queue
from service.engine.request import Item, Request
from service.engine.scheduler import BatchLimits, Slot
from service.errors import BackendError, InvalidOutput
from service.metrics import Metrics

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT", bound=Item)
ItemT_contra = TypeVar("ItemT_contra", bound=Item, contravariant=True)
Row = NDArray[np.float32]
# How much the newest batch counts in the running estimates.
_SMOOTHING = 0.1
# Where computing an interactive request takes less, on average, HTTP takes about as long: it gets the processor that is
# left.
_WORTH_ALL_THREADS_S = 0.002


class Backend(Protocol[ItemT_contra]):
    """What computes. Several threads may call it at once where its device has several runners."""

    def forward(self, batch: Sequence[ItemT_contra], preempt: Preemption) -> Row:
        """One float32 row [width] per item, in order. `preempt` is to be called now and then; it may call forward
        again.
        """
        ...


@dataclass(slots=True)
class RunnerContext(Generic[ItemT]):
    """What the runners of one engine share. Running estimates over all of them are `tokens_per_s`, and `request_s`:
    how long computing an interactive request takes, that is, its share of a batch.
    """

    name: str
    version: str
    backend: Backend[ItemT]
    width: int
    queue: Queue
    cache: RowCache
    metrics: Metrics
    device: ComputeDevice
    clock: Callable[[], float]
    limits: BatchLimits
    tokens_per_s: float = field(default=0.0, init=False)
    request_s: float = field(default=0.0, init=False)

    @property
    def key(self) -> str:
        """What the cache knows the model by."""
        return f"{self.name}:{self.version}"


class Runner(Generic[ItemT]):
    """One of an engine's threads: three verbs, take, compute, settle.

    Interactive requests overtake its bulk batch between two layers, so they never wait for all of it; in return such
    a batch is overtaken by no more tokens than it has itself.

    It ends when the queue is closed, or by itself, when the device is lost: `on_death` is then called
    with the reason and the requests whose items it has in hand.
    """

    def __init__(
        self, shared: RunnerContext[ItemT], number: int, on_death: Callable[[Exception, list[Request]], None]
    ) -> None:
        self._shared = shared
        self._on_death = on_death
        self._is_primary = number == 0
        self._in_hand: list[Slot] = []
        self._overtaking_s = 0.0
        self._thread = threading.Thread(target=self._loop, name=f"engine-{shared.name}-{number}", daemon=True)

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended, if ever it began."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _loop(self) -> None:
        queue, device = self._shared.queue, self._shared.device
        while (batch := queue.take(first=self._is_primary)) is not None:
            try:
                alone = (
                    self._is_primary
                    and queue.resting == device.runners - 1
                    and not 0 < self._shared.request_s < _WORTH_ALL_THREADS_S
                )
                with device.computing(alone=alone) as yield_threads:
                    outcomes = self._compute(batch, yield_threads)
                self._settle(batch, outcomes)
            except (
                Exception
            ) as error:  # the thread's edge: an engine that stands still must never look like one that runs
                self._on_death(error, [request for request, _ in self._in_hand])
                return

    def _compute(self, batch: list[Slot], yield_threads: Preemption) -> list[Row | SondeError]:
        """A row or an error for each slot; equal items are computed once. `yield_threads` is called between its
        parts.
        """
        shared = self._shared
        self._in_hand.extend(batch)
        places: dict[bytes, int] = {}
        unique: list[ItemT] = []
        for request, index in batch:
            item = request.items[index]
            if places.setdefault(item.key, len(unique)) == len(unique):
                unique.append(item)  # type: ignore[arg-type]  # a request holds what submit() was given
        room = 0 if batch[0][0].interactive else sum(item.count for item in unique)
        preempt = (
            _BatchPreemption(yield_threads, shared.queue.urgent, lambda: self._overtake(yield_threads), room)
            if room
            else yield_threads
        )
        overtaking_s, began = self._overtaking_s, shared.clock()
        results = self._rows(unique, preempt)
        seconds = shared.clock() - began - (self._overtaking_s - overtaking_s)
        self._report(unique, len(batch), seconds)
        requests = {request for request, _ in batch}
        for request in requests:
            request.computed(seconds)
        if batch[0][0].interactive:
            shared.request_s = _smoothed(shared.request_s, seconds / len(requests))
        for item, row in zip(unique, results, strict=True):
            if not isinstance(row, SondeError):
                shared.cache.put(shared.key, item.key, row)
        return [results[places[request.items[index].key]] for request, index in batch]

    def _overtake(self, yield_threads: Preemption) -> int:
        """Between two parts of a bulk batch: run what interactive callers wait for; return how many tokens that was."""
        shared = self._shared
        batch = shared.queue.take_urgent()
        if not batch:
            return 0
        began = shared.clock()
        self._settle(batch, self._compute(batch, yield_threads))
        self._overtaking_s += shared.clock() - began
        return sum(request.items[index].count for request, index in batch)

    def _rows(self, items: list[ItemT], preempt: Preemption) -> list[Row | SondeError]:
        """Run items through the backend; when that fails, halve until only the offender fails."""
        try:
            return list(self._checked(items, self._shared.backend.forward(items, preempt)))
        except DeviceLost:
            raise
        except Exception as error:
            full = isinstance(error, ModelOutOfMemory)
            self._count_fault("out_of_memory" if full else "bisected")
            log.warning("batch of %d failed", len(items), extra={"model": self._shared.name}, exc_info=not full)
            if len(items) == 1:
                return [error if isinstance(error, SondeError) else BackendError("the model failed on this input")]
        half = len(items) // 2
        return self._rows(items[:half], preempt) + self._rows(items[half:], preempt)

    def _checked(self, items: list[ItemT], rows: Row) -> list[Row | SondeError]:
        """Refuse a wrong number of rows altogether, and single rows with NaN or infinity in them."""
        width = self._shared.width
        if rows.shape != (len(items), width):
            raise InvalidOutput(f"the model gave shape {list(rows.shape)}, expected [{len(items)}, {width}]")
        if np.isfinite(rows).all():
            return list(rows)
        self._count_fault("invalid_output")
        wrong = InvalidOutput("the model gave NaN or infinity for this input")
        return [row if np.isfinite(row).all() else wrong for row in rows]

    def _settle(self, batch: list[Slot], outcomes: list[Row | SondeError]) -> None:
        """Give each caller its row or its error."""
        del self._in_hand[len(self._in_hand) - len(batch) :]
        for (request, index), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, SondeError):
                self._shared.queue.remove(request)
                request.fail(outcome)
            else:
                request.fill(index, outcome)

    def _count_fault(self, kind: str) -> None:
        self._shared.metrics.batch_faults.labels(self._shared.name, kind).inc()

    def _report(self, items: list[ItemT], slots: int, seconds: float) -> None:
        shared, name = self._shared, self._shared.name
        tokens = sum(item.count for item in items)
        padded = shared.limits.padded(len(items), tokens, max(item.count for item in items))
        metrics = shared.metrics
        metrics.inference.labels(name).observe(seconds)
        metrics.batch_items.labels(name).observe(len(items))
        metrics.batch_tokens.labels(name).observe(padded)
        metrics.padding.labels(name).observe(1 - tokens / padded if padded else 0.0)
        metrics.tokens.labels(name).inc(tokens)
        metrics.duplicates.labels(name).inc(slots - len(items))
        if seconds > 0:
            speed = tokens / seconds * max(shared.device.busy, 1)
            shared.tokens_per_s = _smoothed(shared.tokens_per_s, speed)
            shared.queue.token_s = _smoothed(shared.queue.token_s, seconds / max(tokens, 1))


def _smoothed(estimate: float, newest: float) -> float:
    """The next running estimate; where there was none, 0, it is the newest value."""
    return estimate + _SMOOTHING * (newest - estimate) if estimate else newest


class _BatchPreemption:
    """What a batch calls between its parts; it is overtaken until that was by as many tokens as it has `room` for."""

    def __init__(
        self, yield_threads: Preemption, urgent: PreemptionFlag, overtake: Callable[[], int], room: int
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
            self._room -= self._overtake()
