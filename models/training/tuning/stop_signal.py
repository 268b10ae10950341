"""A clean stop on SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TrainingStopped(SystemExit):
    """SIGTERM arrived and a checkpoint was written; uncaught, the process exits with 143."""

    def __init__(self) -> None:
        super().__init__(143)


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM has arrived.

    It never has off the main thread, where Python handles no signals. The next signal may interrupt the handler, so it
    takes no lock (setting an event would).
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)
