"""A request in the engine: a caller's items, their deadline, and rows as they come in."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_numbers = itertools.count()


class Item(Protocol):
    """A unit of work. Items of equal `key` have equal rows; `count` is its cost in tokens."""

    @property
    def key(self) -> bytes: ...

    @property
    def count(self) -> int: ...


class Request:
    """Items of one caller. `future` gets the rows, float32 [len(items), width], or an error.

    Times are seconds of the engine's clock. Several runners may fill rows at the same time.
    """

    __slots__ = (
        "_clock",
        "_ending",
        "_spans",
        "bulk",
        "client",
        "deadline",
        "finished",
        "future",
        "interactive",
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
        self.items = items
        self.client = client
        self.bulk = bulk
        self.deadline = deadline
        self.submitted = clock()
        self.started: float | None = None
        self.interactive = True
        self.rows = np.empty((len(items), width), dtype=np.float32)
        self.missing = len(items)
        self.finished = False
        self._clock = clock
        self.patience_s = patience_s
        self._spans: list[tuple[float, float]] = []
        self._ending = threading.Lock()
        self.future: Future[NDArray[np.float32]] = Future()

    def fill(self, index: int, row: NDArray[np.float32]) -> None:
        """Set one row; the last one completes the request."""
        if self.finished:
            return
        self.rows[index] = row
        with self._ending:
            self.missing -= 1
            complete = not self.missing
        if complete:
            self._end(self.rows)

    def answer(self, rows: NDArray[np.float32], queue_s: float, inference_s: float) -> None:
        """Complete the request with rows that another process computed, and the seconds that they took there."""
        self.started = self.submitted + queue_s
        self._spans = [(0.0, inference_s)]
        self._end(rows)

    def computed(self, seconds: float) -> None:
        """Record that a batch with items of this request has just been computed, in `seconds`."""
        with self._ending:
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
        self._end(error)

    def _end(self, outcome: NDArray[np.float32] | Exception) -> None:
        # Runners and the event loop may end a request at the same time; the first one does.
        with self._ending:
            if self.finished:
                return
            self.finished = True
        # A caller that stopped waiting has cancelled the future.
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)
