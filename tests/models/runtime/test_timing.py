"""Ways that are timed in turn."""

from __future__ import annotations

import time
from functools import partial

from models.runtime.timing import time_in_turn


def test_the_least_time_of_each_way_counts_after_a_first_try() -> None:
    calls: list[str] = []

    def compute(way: str, seconds: float) -> None:
        calls.append(way)
        ends = time.thread_time() + (seconds if calls.count(way) != 3 else 10 * seconds)
        while time.thread_time() < ends:
            pass

    times = time_in_turn({"a": partial(compute, "a", 0.004), "b": partial(compute, "b", 0.007)}, 0.0)
    assert calls == ["a", "b"] * 5
    assert 0.004 <= times["a"] < 0.007 <= times["b"] < 0.04


def test_time_in_which_others_compute_does_not_count() -> None:
    assert time_in_turn({"a": lambda: time.sleep(0.02)}, 0.0)["a"] < 0.01


def test_a_way_that_is_far_behind_is_not_tried_again() -> None:
    calls = {"fast": 0, "slow": 0}

    def compute(way: str, seconds: float) -> None:
        calls[way] += 1
        ends = time.thread_time() + seconds
        while time.thread_time() < ends:
            pass

    times = time_in_turn({"slow": partial(compute, "slow", 0.02), "fast": partial(compute, "fast", 0.002)}, 0.0)
    assert calls == {"fast": 5, "slow": 3}
    assert times["slow"] >= 0.02


def test_a_way_that_other_work_held_up_once_is_timed_again() -> None:
    calls = 0

    def compute() -> None:
        nonlocal calls
        calls += 1
        ends = time.thread_time() + (0.05 if calls == 2 else 0.002)
        while time.thread_time() < ends:
            pass

    assert time_in_turn({"held up": compute, "other": partial(sum, range(50_000))}, 0.0)["held up"] < 0.02
