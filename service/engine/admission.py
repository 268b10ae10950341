"""How much work may be inside the service at once; the rest is refused before it costs anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Overloaded
from service.metrics import Metrics


class Admission:
    """Counts items and (estimated) tokens of all requests inside. Used from the event loop alone, so it needs no
    lock.
    """

    def __init__(self, max_items: int, max_tokens: int, metrics: Metrics) -> None:
        self._max_items = max_items
        self._max_tokens = max_tokens
        self._metrics = metrics
        self.items = 0
        self.tokens = 0

    @contextmanager
    def admit(self, items: int, tokens: int, tokens_per_s: Callable[[], float]) -> Iterator[None]:
        """Hold room for so much work. A request larger than all the room still gets in when nothing else is there.

        Raises Overloaded with the time in which the backlog should be gone.
        """
        self._refuse_if_full("items", self.items, items, self._max_items, tokens_per_s)
        self._refuse_if_full("tokens", self.tokens, tokens, self._max_tokens, tokens_per_s)
        self.items += items
        self.tokens += tokens
        try:
            yield
        finally:
            self.items -= items
            self.tokens -= tokens

    def _refuse_if_full(self, what: str, held: int, more: int, most: int, tokens_per_s: Callable[[], float]) -> None:
        if held and held + more > most:
            self._metrics.shed.labels(what).inc()
            wait = math.ceil(self.tokens / (tokens_per_s() or self.tokens or 1.0))
            raise Overloaded(
                f"{held} {what} are waiting and {most} may; try again in {max(wait, 1)} s", retry_after_s=max(wait, 1)
            )
