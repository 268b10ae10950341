"""Several runners of one engine: they compute at once, share the work and the threads, and end together."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from models.errors import DeviceLost
from models.runtime.device import ComputeDevice
from models.runtime.device_names import DtypeName
from models.runtime.placement import place
from models.source import DEFAULT_MODEL, locate
from models.text.layer_hooks import LayerHooks
from models.text.packed.encoder import PackedEncoder
from service.config import Settings
from service.engine.cache import RowCache
from service.engine.engine import Engine
from service.engine.runner import _WORTH_ALL_THREADS_S, Backend
from service.engine.scheduler import BatchLimits, Scheduler
from service.errors import Unavailable
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from service.serving.servable import Caller
from tests.fakes.compute_threads import noting
from tests.fakes.item import Doubler, Piece, request
from tests.support.preemption import Calling
from tests.support.server import wait_until

WAIT_S = 20.0


@contextmanager
def engine(
    backend: Backend[Piece],
    device: ComputeDevice,
    on_failure: Callable[[Exception], None] = lambda error: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Engine[Piece]]:
    """An engine not yet started, closed in the end."""
    made: Engine[Piece] = Engine(
        "m",
        "1",
        backend,
        2,
        limits=BatchLimits(max_tokens=1000, interactive_tokens=100),
        cache=RowCache(0),
        metrics=Metrics(),
        device=device,
        on_failure=on_failure,
        clock=clock,
    )
    try:
        yield made
    finally:
        made.close()


def rest(made: Engine[Piece], runners: int) -> None:
    """Wait until so many runners wait for work."""
    wait_until(lambda: made._queue.idle_runners == runners)


class Meeting(Doubler):
    """A backend that gives rows only once so many batches are inside at once."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self._barrier = threading.Barrier(parties)

    def forward(self, batch: Sequence[Piece], preempt: Callable[[], None]) -> NDArray[np.float32]:
        self._barrier.wait(WAIT_S)
        return super().forward(batch, preempt)


def test_runners_share_one_request_and_compute_at_once() -> None:
    backend = Meeting(2)
    with engine(backend, ComputeDevice(runners=2)) as made:
        made.start()
        rest(made, 2)
        asked = made.submit([Piece(number, 50) for number in range(6)])
        assert asked.future.result(WAIT_S)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert sorted(map(sorted, backend.batches)) == [[0, 1, 2], [3, 4, 5]]


def test_little_work_is_not_divided() -> None:
    backend = Doubler()
    with engine(backend, ComputeDevice(runners=2)) as made:
        made.start()
        rest(made, 2)
        made.submit([Piece(number, 10) for number in range(6)]).future.result(WAIT_S)
    assert len(backend.batches) == 1


class Held(Doubler):
    """A backend whose batches with item 0 wait until it may go on."""

    def __init__(self) -> None:
        super().__init__(self._hold)
        self.begun, self.resume = threading.Event(), threading.Event()

    def _hold(self, batch: Sequence[Piece]) -> None:
        if batch[0].number == 0:
            self.begun.set()
            assert self.resume.wait(WAIT_S)


def test_little_work_waits_for_who_computes_already_and_much_does_not() -> None:
    backend = Held()
    with engine(backend, ComputeDevice(runners=2)) as made:
        made.start()
        rest(made, 2)
        first = made.submit([Piece(0, 90)])
        assert backend.begun.wait(WAIT_S)
        little = made.submit([Piece(1, 60)])
        with pytest.raises(TimeoutError):
            little.future.result(0.1)
        made.submit([Piece(2, 70)]).future.result(WAIT_S)
        assert little.future.done()
        backend.resume.set()
        first.future.result(WAIT_S)
    assert backend.batches == [[0], [1, 2]]


@pytest.mark.parametrize(("token_s", "waits"), [(0.0001, False), (0.01, True), (0.0, True)])
def test_a_short_interactive_batch_does_not_wait_for_another_engine(token_s: float, waits: bool) -> None:
    backend, device = Held(), ComputeDevice(admits_short=True)
    with engine(backend, device) as busy, engine(Doubler(), device) as other:
        busy.start()
        held = busy.submit([Piece(0)])
        assert backend.begun.wait(WAIT_S)
        other._queue.token_s = token_s
        other.start()
        asked = other.submit([Piece(1, 10)])
        if waits:
            with pytest.raises(TimeoutError):
                asked.future.result(0.1)
        else:
            asked.future.result(WAIT_S)
        backend.resume.set()
        for request in (held, asked):
            request.future.result(WAIT_S)


def test_a_batch_that_had_no_processor_for_long_counts_as_short() -> None:
    seconds = itertools.count()  # one more at each look: other programs had the processors
    backend, device = Held(), ComputeDevice(admits_short=True)
    with engine(backend, device) as busy, engine(Doubler(), device, clock=lambda: float(next(seconds))) as other:
        other.start()
        other.submit([Piece(1, 10)]).future.result(WAIT_S)
        busy.start()
        held = busy.submit([Piece(0)])
        assert backend.begun.wait(WAIT_S)
        other.submit([Piece(2, 10)]).future.result(WAIT_S)
        backend.resume.set()
        held.future.result(WAIT_S)


def test_a_short_bulk_batch_waits_for_another_engine() -> None:
    backend, device = Held(), ComputeDevice(admits_short=True)
    with engine(backend, device) as busy, engine(Doubler(), device) as other:
        busy.start()
        busy.submit([Piece(0)])
        assert backend.begun.wait(WAIT_S)
        other._queue.token_s = 0.0001
        other.start()
        asked = other.submit([Piece(1, 10)], bulk=True)
        with pytest.raises(TimeoutError):
            asked.future.result(0.1)
        backend.resume.set()
        asked.future.result(WAIT_S)


def test_little_work_of_a_slow_model_does_not_wait() -> None:
    backend = Held()
    with engine(backend, ComputeDevice(runners=2)) as made:
        made.start()
        rest(made, 2)
        made._queue.token_s = 0.001
        made.submit([Piece(0)])
        assert backend.begun.wait(WAIT_S)
        made.submit([Piece(1, 15)]).future.result(WAIT_S)
        backend.resume.set()


def test_what_takes_no_longer_than_http_leaves_it_a_processor() -> None:
    used: list[int] = []
    with engine(Doubler(), ComputeDevice(runners=2, threads=4, compute_threads=noting(used))) as made:
        made.start()
        for number in range(3):
            rest(made, 2)
            made.submit([Piece(number)]).future.result(WAIT_S)
    assert used == [4, 2, 2], "nothing is known of the first"


def test_one_at_a_time_is_computed_by_the_same_runner_with_all_threads() -> None:
    names: list[str] = []
    used: list[int] = []

    def slowly(batch: Sequence[Piece]) -> None:
        names.append(threading.current_thread().name)
        time.sleep(2 * _WORTH_ALL_THREADS_S)

    backend = Doubler(slowly)
    with engine(backend, ComputeDevice(runners=2, threads=4, compute_threads=noting(used))) as made:
        made.start()
        for number in range(5):
            rest(made, 2)
            made.submit([Piece(number)]).future.result(WAIT_S)
    assert names == ["engine-m-0"] * 5
    assert used == [4] * 5


def test_runners_that_compute_at_once_share_the_threads() -> None:
    used: list[int] = []
    with engine(Meeting(2), ComputeDevice(runners=2, threads=4, compute_threads=noting(used))) as made:
        made.start()
        rest(made, 2)
        made.submit([Piece(number, 50) for number in range(6)]).future.result(WAIT_S)
    assert used == [2, 2]


@pytest.mark.parametrize("tokens", [5, 300])
def test_between_its_layers_a_batch_gives_way_interactive_or_not(tokens: int) -> None:
    used: list[int] = []
    device = ComputeDevice(runners=2, threads=4, compute_threads=noting(used))
    with ExitStack() as other:

        def enter(batch: Sequence[Piece]) -> None:
            other.enter_context(device.computing())

        with engine(Doubler(enter), device) as made:
            made.start()
            rest(made, 2)
            made.submit([Piece(1, tokens)]).future.result(WAIT_S)
    assert used == [4, 2, 2]


def test_a_lost_device_ends_all_runners_and_is_told_once() -> None:
    def lose(batch: Sequence[Piece]) -> None:
        if batch[0].number == 0:
            raise DeviceLost("gone")

    told: list[Exception] = []
    with engine(Doubler(lose), ComputeDevice(runners=3), told.append) as made:
        made.start()
        rest(made, 3)
        with pytest.raises(Unavailable, match="device is lost"):
            made.submit([Piece(0)]).future.result(WAIT_S)
        made.join(WAIT_S)
        assert not any(runner._thread.is_alive() for runner in made._runners)
        with pytest.raises(Unavailable, match="device is lost"):
            made.submit([Piece(1)])
    assert len(told) == 1


def test_a_batch_takes_no_item_more_once_it_has_its_share() -> None:
    scheduler = Scheduler(BatchLimits(max_tokens=1000))
    scheduler.add(request(*[30] * 6))
    assert [len(scheduler.next_batch(most_tokens=64)) for _ in range(3)] == [3, 3, 0]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_two_threads_get_from_one_network_what_one_gets(dtype: DtypeName) -> None:
    encoder = PackedEncoder(locate(DEFAULT_MODEL), place("cpu", dtype))
    batches = [encoder.text.encode([f"text {number} " * (1 + number % 7)] * (1 + number % 3)) for number in range(8)]
    alone = [encoder.forward(batch) for batch in batches]
    beside: dict[int, NDArray[np.float32]] = {}

    def compute(start: int) -> None:
        for at in range(start, len(batches), 2):
            beside[at] = encoder.forward(batches[at])

    threads = [threading.Thread(target=compute, args=(start,)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at, rows in enumerate(alone):
        np.testing.assert_allclose(beside[at], rows, atol=1e-5)


def test_a_network_pauses_for_the_thread_that_runs_it() -> None:
    layers = nn.ModuleList([nn.Identity(), nn.Identity()])
    pauses = LayerHooks(layers)
    inside, met = threading.Barrier(2), {"one": 0, "other": 0}

    def run(name: str) -> None:
        def count() -> None:
            met[name] += 1

        with pauses.calling(Calling(count)):
            inside.wait(WAIT_S)
            for layer in layers:
                layer(torch.ones(1))
            inside.wait(WAIT_S)

    threads = [threading.Thread(target=run, args=(name,)) for name in met]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert met == {"one": 2, "other": 2}


@pytest.mark.slow
def test_the_service_computes_with_as_many_runners_as_it_is_told() -> None:
    before = torch.get_num_threads()
    manager = ModelManager(Settings(runners=2, threads=2, device="cpu", dtype="float32", cache_mb=0), Metrics())
    texts = [[f"request {number} " * (1 + 3 * place) for place in range(5)] for number in range(4)]

    async def ask() -> list[NDArray[np.float32]]:
        served = manager.find_for("embedding", None)
        answers = await asyncio.gather(
            *(served.rows(one, Caller(str(number)), "embedding") for number, one in enumerate(texts))
        )
        return [answer.values for answer in answers]

    try:
        manager.open()
        assert {thread.name for thread in threading.enumerate()} >= {
            "engine-all-MiniLM-L6-v2-0",
            "engine-all-MiniLM-L6-v2-1",
        }
        model = PackedEncoder(locate(DEFAULT_MODEL), place("cpu", "float32"))
        for rows, one in zip(asyncio.run(ask()), texts, strict=True):
            np.testing.assert_allclose(rows, model.forward(model.text.encode(one)), atol=1e-4)
    finally:
        manager.close()
        torch.set_num_threads(before)
