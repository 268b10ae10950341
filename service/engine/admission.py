"""Admission: a limit on the work inside the service. Others are refused at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Overloaded
from service.metrics import Metrics


class Admission:
    """Counts items and estimated tokens of all requests inside, for the event loop alone."""

    def __init__(self, max_items: int, max_tokens: int, metrics: Metrics) -> None:
        self._max_items = max_items
        self._max_tokens = max_tokens
        self._metrics = metrics
        self.items = 0
        self.tokens = 0

    @contextmanager
    def admit(self, items: int, tokens: int, tokens_per_s: Callable[[], float]) -> Iterator[None]:
        """Hold room for a request. A larger one than the limit must be alone.

        Raises Overloaded with the seconds in which the backlog should be computed.
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

    def _refuse_if_full(self, unit: str, held: int, more: int, limit: int, tokens_per_s: Callable[[], float]) -> None:
        if held and held + more > limit:
            self._metrics.shed.labels(unit).inc()
            wait_s = max(math.ceil(self.tokens / (tokens_per_s() or self.tokens or 1.0)), 1)
            message = f"{held} {unit} are waiting, {limit} are allowed; try again in {wait_s} s"
            raise Overloaded(message, retry_after_s=wait_s)
