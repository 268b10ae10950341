"""Handling of SIGTERM and SIGINT."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable


def on_signals(act: Callable[[], None]) -> None:
    """Call `act` in a thread for each SIGTERM or SIGINT. For the main thread alone.

    A handler interrupts the main thread, and a second handler interrupts the first, so a handler that takes a lock
    may deadlock. Two signals within microseconds are the rule: `make` passes on a SIGTERM that reached the whole
    group already. The handler therefore only calls `SimpleQueue.put`, which is reentrant.
    """
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run() -> None:
        while True:
            arrived.get()
            act()

    threading.Thread(target=run, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: arrived.put(number))
