"""What is to happen when this process is asked to end."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable


def on_signals(act: Callable[[], None]) -> None:
    """Call `act`, in a thread of its own, once for each SIGTERM or SIGINT from now on. To be called by the main thread.

    A handler runs between two instructions of the main thread, and a second one in the midst of the first: a lock
    that either needs may be held by what it interrupted, which then never goes on. `make` passes on a SIGTERM that
    reached the whole group, so that two within microseconds are the rule. `SimpleQueue.put` is made to be
    interrupted by itself; nothing else is done there.
    """
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()

    def attend() -> None:
        while True:
            arrived.get()
            act()

    threading.Thread(target=attend, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: arrived.put(number))
