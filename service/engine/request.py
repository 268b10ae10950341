"""A request in the engine: a caller's items, their deadline, and rows as they come in."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

_numbers = itertools.count()
Rows = NDArray[np.float32]


class Item(Protocol):
    """A unit of work. Items of equal `key` have equal rows; `count` is its cost in tokens."""

    @property
    def key(self) -> bytes: ...

    @property
    def count(self) -> int: ...


class Unprepared:
    """An item that a runner prepares before it computes it, such as an image to decode.

    A runner asks for its key, too, which may take time.
    """

    __slots__ = ()

    def prepared(self) -> Item:
        """The item to compute, of the same key. Raises SondeError."""
        raise NotImplementedError


class RowsFuture:
    """Rows or an error, once they are there. A Future of Python would make a condition for each request."""

    __slots__ = ("_callbacks", "_lock", "_value")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._value: Rows | Exception | None = None
        self._callbacks: list[Callable[[RowsFuture], object]] = []

    def set(self, value: Rows | Exception) -> None:
        """End the wait, unless it has ended already: of several threads, the first one does."""
        with self._lock:
            if self._value is not None:
                return
            self._value = value
        for callback in self._callbacks:
            self._call(callback)

    def done(self) -> bool:
        """Whether there is a value."""
        return self._value is not None

    def add_done_callback(self, callback: Callable[[RowsFuture], object]) -> None:
        """Call back in the thread that sets the value, or now where it is there."""
        with self._lock:
            if self._value is None:
                self._callbacks.append(callback)
                return
        self._call(callback)

    def result(self, timeout_s: float | None = None) -> Rows:
        """Wait for the rows. Raises TimeoutError, or the error."""
        value = self._wait(timeout_s)
        if isinstance(value, Exception):
            raise value
        return value

    def exception(self, timeout_s: float | None = None) -> Exception | None:
        """Wait for the error; None where there are rows. Raises TimeoutError."""
        value = self._wait(timeout_s)
        return value if isinstance(value, Exception) else None

    def _wait(self, timeout_s: float | None) -> Rows | Exception:
        if self._value is None:
            ended = threading.Event()
            self.add_done_callback(lambda _: ended.set())
            ended.wait(timeout_s)
        if self._value is None:
            raise TimeoutError
        return self._value

    def _call(self, callback: Callable[[RowsFuture], object]) -> None:
        try:
            callback(self)
        except Exception:  # a caller's fault must not end the engine's thread
            log.exception("a request's callback failed")


class Request:
    """Items of one caller, of one kind. `future` gets the rows, float32 [len(items), width], or an error.

    Times are seconds of the engine's clock. Several runners may fill rows at the same time.
    """

    __slots__ = (
        "_clock",
        "_lock",
        "_spans",
        "bulk",
        "client",
        "deadline",
        "future",
        "interactive",
        "is_unprepared",
        "items",
        "missing",
        "number",
        "patience_s",
        "rows",
        "started",
        "submitted",
    )

    def __init__(
        self,
        items: Sequence[Item],
        width: int,
        *,
        client: str = "",
        deadline: float | None = None,
        patience_s: float | None = None,
        bulk: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number = next(_numbers)
        self.items = list(items)
        self.is_unprepared = bool(items) and isinstance(items[0], Unprepared)
        self.client = client
        self.bulk = bulk
        self.deadline = deadline
        self.submitted = clock()
        self.started: float | None = None
        self.interactive = True
        self.rows = np.empty((len(items), width), dtype=np.float32)
        self.missing = len(items)
        self._clock = clock
        self.patience_s = patience_s
        self._spans: list[tuple[float, float]] = []
        self._lock = threading.Lock()
        self.future = RowsFuture(self._lock)

    @property
    def finished(self) -> bool:
        """Whether there are all rows, or an error."""
        return self.future.done()

    def prepare(self, index: int) -> None:
        """Put what an item is computed as in its place. Raises what preparing it raises."""
        item = self.items[index]
        if isinstance(item, Unprepared):
            self.items[index] = item.prepared()

    def fill(self, index: int, row: NDArray[np.float32]) -> None:
        """Set one row; the last one completes the request."""
        if self.finished:
            return
        self.rows[index] = row
        with self._lock:
            self.missing -= 1
            complete = not self.missing
        if complete:
            self.future.set(self.rows)

    def answer(self, rows: NDArray[np.float32], queue_s: float, inference_s: float) -> None:
        """Complete the request with rows that another process computed, and the seconds that they took there."""
        self.started = self.submitted + queue_s
        self._spans = [(0.0, inference_s)]
        self.future.set(rows)

    def computed(self, seconds: float) -> None:
        """Record that a batch with items of this request has just been computed, in `seconds`."""
        with self._lock:
            ended = self._clock()
            if self.patience_s is not None:
                self.deadline = ended + self.patience_s
            began = ended - seconds
            while self._spans and self._spans[-1][1] > began:
                began = min(began, self._spans.pop()[0])
            self._spans.append((began, ended))

    @property
    def queue_s(self) -> float:
        """Seconds from its submission to its first batch; 0 where all rows came from the cache."""
        return self.started - self.submitted if self.started is not None else 0.0

    @property
    def inference_s(self) -> float:
        """Seconds in which items of it were computed; time of several runners at once counts once."""
        return sum(ended - began for began, ended in self._spans)

    def fail(self, error: Exception) -> None:
        """End the request with an error, unless it has ended already."""
        self.future.set(error)


class Flow:
    """One request's queued items, longest first, so that neighbours have similar lengths."""

    __slots__ = ("finish", "order", "request", "tokens")

    def __init__(self, request: Request, indices: list[int]) -> None:
        self.request = request
        self.order = deque(sorted(indices, key=lambda index: -request.items[index].count))
        self.tokens = sum(request.items[index].count for index in indices)
        self.finish = 0.0  # of what the next batch may take of it: by its next item alone, many requests would win

    @property
    def next_count(self) -> int:
        return self.request.items[self.order[0]].count

    def beyond(self, max_tokens: int) -> int:
        """The tokens that a batch of `max_tokens` leaves, even if it takes nothing else."""
        return max(self.tokens - max_tokens, 0)
