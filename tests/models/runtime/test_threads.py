"""Threads that compute together: how many, and where they run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models.runtime.threads import compute_threads

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two processors"
)
TASKS = Path("/proc/self/task")


@pytest.fixture
def one() -> Iterator[ThreadPoolExecutor]:
    """A thread that may run on two processors."""
    two = sorted(os.sched_getaffinity(0))[:2]
    with ThreadPoolExecutor(1, initializer=lambda: os.sched_setaffinity(0, two)) as pool:
        yield pool


def add() -> None:
    torch.ones(1 << 20).add_(1)


def places() -> dict[str, set[int]]:
    """Where each thread of this process may run."""
    return {task.name: os.sched_getaffinity(int(task.name)) for task in TASKS.iterdir()}


def ask(pool: ThreadPoolExecutor, work: Callable[[], None]) -> None:
    pool.submit(work).result(20)


def test_two_threads_take_a_processor_each_while_they_compute(one: ThreadPoolExecutor) -> None:
    def work() -> None:
        here, before = str(threading.get_native_id()), places()
        first, second = sorted(os.sched_getaffinity(0))
        for _ in range(2):
            with compute_threads(2, alone=True):
                add()
                assert torch.get_num_threads() == 2
                assert places()[here] == {first}
                new = [where for task, where in places().items() if task not in before]
                assert new.count({second}) == 1
                assert {first} not in new
            assert places()[here] == {first, second}

    ask(one, work)


def test_an_error_leaves_the_thread_free(one: ThreadPoolExecutor) -> None:
    def work() -> None:
        with pytest.raises(RuntimeError), compute_threads(2, alone=True):
            raise RuntimeError
        assert len(os.sched_getaffinity(0)) == 2

    ask(one, work)


@pytest.mark.parametrize(("threads", "alone"), [(1, True), (3, True), (2, False)])
def test_other_numbers_and_who_has_company_are_left_to_the_system(
    one: ThreadPoolExecutor, threads: int, alone: bool
) -> None:
    def work() -> None:
        with compute_threads(threads, alone=alone):
            add()
            assert torch.get_num_threads() == threads
            assert len(os.sched_getaffinity(0)) == 2

    ask(one, work)


def test_where_processors_cannot_be_chosen_it_computes_all_the_same(
    one: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise PermissionError

    def work() -> None:
        monkeypatch.setattr(os, "sched_setaffinity", refuse)
        for _ in range(2):
            with compute_threads(2, alone=True):
                add()

    ask(one, work)
