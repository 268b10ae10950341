"""The time limit of each wait for PostgreSQL.

A server that is frozen (SIGSTOP, a black hole in the network) honours no limit of its own, and its kernel still answers
keepalives. The limit is therefore kept on this side.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")


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
