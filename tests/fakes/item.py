"""Work without tokens, for tests of the engine: an item is a key and a cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engine.request import Request


@dataclass(frozen=True, slots=True)
class Piece:
    """An item of a certain cost; its row is its number."""

    number: int
    count: int = 10

    @property
    def key(self) -> bytes:
        return b"%d" % self.number


class Doubler:
    """A backend whose row of an item is (number, 2 · number). `fault` may raise; it has `layers` layers."""

    def __init__(self, fault: Callable[[Sequence[Piece]], None] | None = None, layers: int = 1) -> None:
        self.batches: list[list[int]] = []
        self._fault = fault
        self._layers = layers

    def forward(self, batch: Sequence[Piece], preempt: Callable[[], None]) -> NDArray[np.float32]:
        self.batches.append([item.number for item in batch])
        if self._fault is not None:
            self._fault(batch)
        for _ in range(self._layers):
            preempt()
        return np.array([[item.number, 2 * item.number] for item in batch], dtype=np.float32)


def request(*counts: int, client: str = "", deadline: float | None = None, first: int = 0) -> Request:
    """A request whose items have these costs in tokens."""
    return Request(
        [Piece(first + number, count) for number, count in enumerate(counts)], 2, client=client, deadline=deadline
    )
