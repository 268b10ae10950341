"""The time limit of a database call as a whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from service.errors import Unavailable

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
