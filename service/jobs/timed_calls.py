"""Calls of the database and the disk by the API: in threads of their own, with a time limit."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec, TypeVar

from service.errors import Unavailable
from service.jobs.call_deadline import RETRY_AFTER_S, deadline

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Requests are answered within 10 s whatever the database does.
REQUEST_LIMIT_S = 8.0
_THREADS = 8
_MAX_CALLS = 256
_CLEAN_UP_S = 1.0


class TimeBudget:
    """The seconds that the calls of one request may still take together."""

    def __init__(self, left_s: float = REQUEST_LIMIT_S) -> None:
        self.left_s = left_s

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time of a call."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.left_s -= time.monotonic() - began


class CallExecutor:
    """Threads that only call the database, or the disk: when it hangs, nothing else waits.

    A thread cannot be stopped. A call that takes too long is therefore left alone, and its caller gets Unavailable at
    once. It commits nothing afterwards, and counts among the `max_calls` until its thread is free again.
    """

    def __init__(self, name: str = "database", threads: int = _THREADS, max_calls: int = _MAX_CALLS) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"call-{name}")
        self._free = threading.BoundedSemaphore(max_calls)

    async def run(self, limit_s: float, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call `work` in a thread. Raises Unavailable after `limit_s`, and at once when too many calls wait."""
        until = time.monotonic() + limit_s
        call = self._submit(until, partial(work, *arguments, **options))
        future = asyncio.wrap_future(call)
        future.add_done_callback(_take_exception)
        done, _ = await asyncio.wait({future}, timeout=limit_s)
        if not done:
            call.add_done_callback(lambda _: self._log_late(until))
            raise self._unavailable("does not answer in time")
        return future.result()

    async def clean_up(self, work: Callable[[], None]) -> None:
        """Call `work` in a thread whenever one is free, however many calls wait; wait for it only for a second."""
        future = asyncio.wrap_future(self._pool.submit(_call, math.inf, work))
        future.add_done_callback(_take_exception)
        done, _ = await asyncio.wait({future}, timeout=_CLEAN_UP_S)
        for ended in done:
            ended.result()

    def close(self) -> None:
        """Start no more calls. Those that hang end by themselves or with the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, until: float, work: Callable[[], T]) -> Future[T]:
        if not self._free.acquire(blocking=False):
            raise self._unavailable("has too many calls to answer")
        submitted = self._pool.submit(_call, until, work)
        submitted.add_done_callback(lambda _: self._free.release())
        return submitted

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(f"the {self._name} of jobs {why}", retry_after_s=RETRY_AFTER_S)

    def _log_late(self, until: float) -> None:
        log.warning("a call of the %s ended %.1f s too late", self._name, time.monotonic() - until)


def _call(until: float, work: Callable[[], T]) -> T:
    with deadline(until):
        return work()


def _take_exception(future: asyncio.Future[T]) -> None:
    """Keep asyncio from reporting the error of a call whose caller has left."""
    if not future.cancelled():
        future.exception()
