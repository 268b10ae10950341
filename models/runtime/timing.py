"""Ways to compute the same, timed in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

from models.runtime.device import threads_set_to

WayT = TypeVar("WayT")

# The least number of timings of a way. One that takes a multiple of the fastest's time is timed twice, since other
# work may hold up the first time. The limit is high: int8 may be seven times as fast as float32, and ways of float32
# differ by little.
_MIN_ROUNDS, _HOPELESS, _HOPELESS_ROUNDS = 4, 8.0, 2


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, and draw random numbers that nothing else misses afterwards.

    On a busy machine several threads wait for each other, which hides the difference between two ways.
    """
    with threads_set_to(1), torch.random.fork_rng(devices=[]):
        yield


def time_in_turn(ways: Mapping[WayT, Callable[[], object]], seconds: float) -> dict[WayT, float]:
    """The least processor time of each way in seconds, after rounds for some `seconds`; call it in `one_thread`.

    The time of this thread alone counts, so that other work on the machine hardly changes it.
    """
    for compute in ways.values():  # the first time, libraries prepare themselves
        compute()
    least = dict.fromkeys(ways, math.inf)
    ends, rounds = time.thread_time() + seconds, 0
    while rounds < _MIN_ROUNDS or time.thread_time() < ends:
        rounds += 1
        fastest = min(least.values())
        for way, compute in ways.items():
            if rounds > _HOPELESS_ROUNDS and least[way] > _HOPELESS * fastest:
                continue
            began = time.thread_time()
            compute()
            least[way] = min(least[way], time.thread_time() - began)
    return least
