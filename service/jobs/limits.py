"""Time limits of database calls: of one call as a whole, and of each wait for PostgreSQL.

A server that is frozen (SIGSTOP, a black hole in the network) honours no limit of its own, and its kernel still answers
keepalives. The limits here are therefore kept on this side.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import psycopg

from service.errors import Unavailable

T = TypeVar("T")

RETRY_AFTER_S = 2
_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


@contextmanager
def deadline(at: float) -> Iterator[None]:
    """Let nothing begin, and no transaction commit, after a time of the monotonic clock. Raises Unavailable."""
    token = _deadline.set(at)
    try:
        require_time()
        yield
    finally:
        _deadline.reset(token)


def require_time() -> None:
    """Raise Unavailable after the deadline of the call that this thread works on."""
    if time.monotonic() >= _deadline.get():
        raise Unavailable("the time for this call is over", retry_after_s=RETRY_AFTER_S)


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that closes when the server leaves one operation without an answer for `limit_s`."""

    limit_s = float("inf")

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """Run an operation of psycopg. Raises OperationalError after the limit."""
        return super().wait(self._limited(gen), *arguments, **options)

    def _limited(self, operation: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """The same operation. psycopg resumes it ten times a second while nothing arrives."""
        until = time.monotonic() + self.limit_s
        try:
            wanted = next(operation)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() >= until:
                    self.pgconn.finish()  # it is in the middle of an answer, so it can never be used again
                    raise psycopg.OperationalError(f"no answer from the server for {self.limit_s:g} s")
                wanted = operation.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result
