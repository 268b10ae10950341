"""A compute device: its room, its threads and where they run, and its errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models.errors import DeviceLost, ModelOutOfMemory
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.device import ComputeDevice, compute_threads, inference_mode, leave_a_processor
from tests.fakes.compute_threads import noting

needs_two_processors = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two processors"
)
WAIT_S = 5.0
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


def up(preempt: Preemption) -> bool:
    """Whether it asks to be called."""
    return any(bool(flag[0]) for flag in preempt.flags)


def test_a_batch_that_began_alone_continues_with_a_share_once_others_compute() -> None:
    used: list[int] = []
    device = ComputeDevice(runners=2, threads=4, compute_threads=noting(used))
    with device.computing() as yield_threads:
        yield_threads()
        with device.computing(alone=False) as of_a_share:
            assert of_a_share is NO_PREEMPTION
            yield_threads()
            yield_threads()
        yield_threads()
    assert used == [4, 2, 2]


def test_a_batch_that_is_alone_again_before_it_yields_keeps_its_threads() -> None:
    used: list[int] = []
    device = ComputeDevice(runners=2, threads=4, compute_threads=noting(used))
    with device.computing() as yield_threads:
        for _ in range(2):
            with device.computing(alone=False):
                assert up(yield_threads)
            yield_threads()
            assert not up(yield_threads)
        with device.computing(alone=False):
            yield_threads()
            assert not yield_threads.flags, "there is nothing left to give way to"
    assert used == [4, 2, 2, 2, 2]
    with device.computing(), device.computing() as second:
        assert second is NO_PREEMPTION


def test_a_device_with_room_for_one_batch_needs_no_preemption() -> None:
    with ComputeDevice(runners=1, threads=2).computing() as yield_threads:
        assert yield_threads is NO_PREEMPTION


def test_a_device_has_room_for_its_number_of_batches_and_no_more() -> None:
    device = ComputeDevice(runners=2)
    entered = threading.Event()

    def enter() -> None:
        with device.computing():
            entered.set()

    with device.computing():
        with device.computing():
            third = threading.Thread(target=enter)
            third.start()
            assert not entered.wait(0.05)
        assert entered.wait(WAIT_S)
    third.join(WAIT_S)
    assert device.busy == 0


def entering(device: ComputeDevice) -> tuple[threading.Thread, threading.Event, threading.Event]:
    """A thread that computes a short batch: itself, whether it has begun, and what ends it."""
    begun, ended = threading.Event(), threading.Event()

    def compute() -> None:
        with device.computing(alone=False, short=True):
            begun.set()
            assert ended.wait(WAIT_S)

    thread = threading.Thread(target=compute)
    thread.start()
    return thread, begun, ended


def test_one_short_batch_at_a_time_runs_without_room() -> None:
    device = ComputeDevice(admits_short=True)
    with device.computing():
        first, first_begun, first_ended = entering(device)
        assert first_begun.wait(WAIT_S)
        second, second_begun, second_ended = entering(device)
        assert not second_begun.wait(0.05)
        assert device.busy == 2
    assert second_begun.wait(WAIT_S), "the room that is free again is for it, too"
    for thread, ended in ((first, first_ended), (second, second_ended)):
        ended.set()
        thread.join(WAIT_S)
    assert device.busy == 0


def test_a_short_batch_waits_where_the_device_admits_none() -> None:
    device = ComputeDevice()
    with device.computing():
        thread, begun, ended = entering(device)
        assert not begun.wait(0.05)
    ended.set()
    thread.join(WAIT_S)
    assert begun.is_set()


def test_no_batch_runs_alone_while_another_is_prepared() -> None:
    used: list[int] = []
    device = ComputeDevice(runners=2, threads=4, compute_threads=noting(used))
    with device.preparing(), device.computing() as beside:
        assert beside is NO_PREEMPTION
    assert used == [2, 2]
    used.clear()
    with device.computing() as alone, device.preparing():
        assert device.busy == 1
        assert up(alone)
        alone()
    assert used == [4, 2, 2]


def test_a_model_that_loads_beside_others_keeps_to_a_share() -> None:
    used: list[int] = []
    device = ComputeDevice(runners=2, threads=5, compute_threads=noting(used))
    with device.sharing(), device.computing(alone=False):
        pass
    assert used == [2, 2]


@pytest.mark.parametrize(("threads", "left"), [(1, 1), (2, 1), (5, 4)])
def test_one_processor_is_left_to_other_work_and_taken_again(one: ThreadPoolExecutor, threads: int, left: int) -> None:
    def compute() -> tuple[int, int]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        with leave_a_processor():
            used = torch.get_num_threads()
        after = torch.get_num_threads()
        torch.set_num_threads(before)  # new threads take the number that was set last
        return used, after

    assert one.submit(compute).result() == (left, threads)


def test_each_thread_has_its_own_number_of_threads() -> None:
    mine = torch.get_num_threads()
    seen: list[int] = []

    def compute_with_one() -> None:
        torch.set_num_threads(1)
        torch.ones(4, 4) @ torch.ones(4, 4)
        seen.append(torch.get_num_threads())

    other = threading.Thread(target=compute_with_one)
    other.start()
    other.join(WAIT_S)
    try:
        assert seen == [1]
        assert torch.get_num_threads() == mine
    finally:
        torch.set_num_threads(mine)  # threads that begin later take the last number set
