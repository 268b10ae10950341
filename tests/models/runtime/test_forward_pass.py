"""A forward pass: its errors, its threads and where they run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models.errors import DeviceLost, ModelOutOfMemory
from models.runtime.forward_pass import compute_threads, inference_mode

needs_two_processors = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two processors"
)
CPU = torch.device("cpu")
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


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), ModelOutOfMemory),
        (MemoryError(), ModelOutOfMemory),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), ModelOutOfMemory),
        (torch.AcceleratorError("device-side assert"), DeviceLost),
        (RuntimeError("shapes do not match"), RuntimeError),
    ],
)
def test_torchs_failures_become_ours(raised: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected), inference_mode(CPU):
        raise raised


def test_inference_keeps_no_gradients() -> None:
    with inference_mode(CPU):
        assert not torch.is_grad_enabled()


@needs_two_processors
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


@needs_two_processors
def test_an_error_leaves_the_thread_free(one: ThreadPoolExecutor) -> None:
    def work() -> None:
        with pytest.raises(RuntimeError), compute_threads(2, alone=True):
            raise RuntimeError
        assert len(os.sched_getaffinity(0)) == 2

    ask(one, work)


@needs_two_processors
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


@needs_two_processors
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
