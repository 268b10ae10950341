"""The engine: who gets a row, who gets an error, and what is never computed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import DeviceLost, ModelOutOfMemory
from models.runtime.device import ComputeDevice
from service.engine.cache import RowCache
from service.engine.engine import Engine
from service.engine.request import Request
from service.engine.runner import Backend, Runner
from service.engine.scheduler import BatchLimits
from service.errors import BackendError, ClientGone, DeadlineExceeded, InvalidOutput, Unavailable
from service.metrics import Metrics
from service.serving.servable import wait_for_rows
from tests.fakes.item import Doubler, Piece

LIMITS = BatchLimits(max_tokens=1000, max_items=32, interactive_tokens=100)
WAIT_S = 20.0
FIRST_URGENT = 1000


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def engine(
    backend: Backend[Piece],
    *,
    metrics: Metrics | None = None,
    cache_bytes: int = 0,
    clock: Callable[[], float] | None = None,
    device: ComputeDevice | None = None,
    on_failure: Callable[[Exception], None] = lambda error: None,
    start: bool = True,
    limits: BatchLimits = LIMITS,
    loop_tokens: int = 0,
) -> Iterator[Engine[Piece]]:
    """An engine that is closed in the end. Not started, it lets requests pile up first, so that batches are known."""
    made: Engine[Piece] = Engine(
        "m",
        "1",
        backend,
        2,
        limits=limits,
        cache=RowCache(cache_bytes),
        metrics=metrics or Metrics(),
        device=device or ComputeDevice(),
        clock=clock or Clock(),
        on_failure=on_failure,
        loop_tokens=loop_tokens,
    )
    if start:
        made.start()
    try:
        yield made
    finally:
        made.close()


def pieces(*numbers: int, count: int = 10) -> list[Piece]:
    return [Piece(number, count) for number in numbers]


def first_column(request: Request) -> list[float]:
    column: list[float] = request.future.result(WAIT_S)[:, 0].tolist()
    return column


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, {"model": "m", **labels}) or 0.0


def test_rows_come_back_in_order() -> None:
    with engine(Doubler()) as made:
        rows = made.submit(pieces(3, 1, 2)).future.result(WAIT_S)
    assert rows.tolist() == [[3, 6], [1, 2], [2, 4]]


def test_callers_that_wait_together_share_a_batch() -> None:
    backend = Doubler()
    with engine(backend, start=False) as made:
        requests = [made.submit(pieces(number)) for number in range(5)]
        made.start()
        assert [first_column(request) for request in requests] == [[0], [1], [2], [3], [4]]
    assert backend.batches == [[0, 1, 2, 3, 4]]


def test_equal_items_of_a_batch_are_computed_once() -> None:
    backend, metrics = Doubler(), Metrics()
    with engine(backend, metrics=metrics, start=False) as made:
        requests = [made.submit(pieces(7, 7, 8)), made.submit(pieces(8))]
        made.start()
        assert [first_column(request) for request in requests] == [[7, 7, 8], [8]]
    assert sorted(backend.batches[0]) == [7, 8]
    assert value(metrics, "sonde_duplicate_items_total") == 2


def test_cached_rows_are_never_computed_again() -> None:
    backend, metrics = Doubler(), Metrics()
    with engine(backend, metrics=metrics, cache_bytes=10_000) as made:
        first_column(made.submit(pieces(1, 2)))
        again = made.submit(pieces(2, 3))
        assert first_column(again) == [2, 3]
        assert made.submit(pieces(1)).future.done(), "nothing to wait for"
    assert backend.batches == [[1, 2], [3]]
    assert (value(metrics, "sonde_cache_hits_total"), value(metrics, "sonde_cache_misses_total")) == (2, 3)


def test_a_cache_that_is_off_neither_has_nor_lacks_rows() -> None:
    metrics = Metrics()
    with engine(Doubler(), metrics=metrics, cache_bytes=0) as made:
        assert first_column(made.submit(pieces(1, 2, 1))) == [1, 2, 1]
    assert (value(metrics, "sonde_cache_hits_total"), value(metrics, "sonde_cache_misses_total")) == (0, 0)


def test_cancelled_requests_are_never_computed() -> None:
    backend = Doubler()
    with engine(backend, start=False) as made:
        gone, stays = made.submit(pieces(1, 2)), made.submit(pieces(3))
        assert made.cancel(gone, ClientGone("the caller hung up")) == 2
        made.start()
        assert first_column(stays) == [3]
        with pytest.raises(ClientGone):
            gone.future.result(WAIT_S)
    assert backend.batches == [[3]]


def test_a_deadline_passed_in_the_queue_costs_no_forward_pass() -> None:
    backend, clock = Doubler(), Clock()
    with engine(backend, clock=clock, start=False) as made:
        late, timely = made.submit(pieces(1), deadline=101.0), made.submit(pieces(2), deadline=103.0)
        clock.now = 102.0
        made.start()
        assert first_column(timely) == [2]
        with pytest.raises(DeadlineExceeded):
            late.future.result(WAIT_S)
    assert backend.batches == [[2]]


def _poison(batch: Sequence[Piece]) -> None:
    if any(item.number == 13 for item in batch):
        raise ValueError("a secret of the library")


def test_a_poison_item_fails_alone() -> None:
    metrics = Metrics()
    with engine(Doubler(_poison), metrics=metrics, start=False) as made:
        good = [made.submit(pieces(number)) for number in range(8)]
        bad = made.submit(pieces(13))
        made.start()
        assert [first_column(request) for request in good] == [[float(number)] for number in range(8)]
        with pytest.raises(BackendError, match=r"^the model failed on this input$"):
            bad.future.result(WAIT_S)
        assert first_column(made.submit(pieces(9))) == [9], "the engine goes on"
    assert value(metrics, "sonde_batch_faults_total", kind="bisected") >= 4


def test_out_of_memory_halves_the_batch() -> None:
    def small_memory(batch: Sequence[Piece]) -> None:
        if len(batch) > 2:
            raise ModelOutOfMemory("too large")

    backend = Doubler(small_memory)
    with engine(backend, start=False) as made:
        request = made.submit(pieces(*range(8)))
        made.start()
        assert first_column(request) == list(range(8))
    assert [len(batch) for batch in backend.batches] == [8, 4, 2, 2, 4, 2, 2]


def test_an_item_that_cannot_fit_says_so() -> None:
    def no_memory(batch: Sequence[Piece]) -> None:
        raise ModelOutOfMemory("too large")

    with engine(Doubler(no_memory)) as made, pytest.raises(ModelOutOfMemory):
        made.submit(pieces(1)).future.result(WAIT_S)


class Answers:
    """A backend that always answers the same."""

    def __init__(self, rows: list[list[float]]) -> None:
        self._rows = np.array(rows, dtype=np.float32)

    def forward(self, batch: Sequence[Piece], preempt: Callable[[], None]) -> NDArray[np.float32]:
        return self._rows


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_numbers_that_are_none_never_leave_the_house(wrong: float) -> None:
    metrics = Metrics()
    with engine(Answers([[1, 2], [wrong, 2]]), metrics=metrics, start=False) as made:
        good, bad = made.submit(pieces(1)), made.submit(pieces(2))
        made.start()
        assert first_column(good) == [1]
        with pytest.raises(InvalidOutput, match="NaN or infinity"):
            bad.future.result(WAIT_S)
    assert value(metrics, "sonde_batch_faults_total", kind="invalid_output") == 1


def test_a_wrong_number_of_rows_is_caught() -> None:
    with (
        engine(Answers([[1, 2], [3, 4], [5, 6]])) as made,
        pytest.raises(InvalidOutput, match=r"\[3, 2\], expected \[1, 2\]"),
    ):
        made.submit(pieces(1)).future.result(WAIT_S)


def test_a_lost_device_is_told_to_everyone_and_ends_the_engine() -> None:
    def lose(batch: Sequence[Piece]) -> None:
        raise DeviceLost("gone")

    told: list[Exception] = []
    with engine(Doubler(lose), on_failure=told.append, start=False) as made:
        waiting = [made.submit(pieces(number, count=600)) for number in range(3)]
        made.start()
        for request in waiting:
            with pytest.raises(Unavailable, match="device is lost"):
                request.future.result(WAIT_S)
        made.join(WAIT_S)
        assert isinstance(made.failure, DeviceLost)
        assert len(told) == 1
        with pytest.raises(Unavailable):
            made.submit(pieces(9))


def test_a_fault_of_the_engine_itself_ends_it_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Exception] = []
    with engine(Doubler(), on_failure=told.append, start=False) as made:
        monkeypatch.setattr(Runner, "_report", lambda *args: 1 / 0)
        waiting = made.submit(pieces(1))
        made.start()
        with pytest.raises(Unavailable):
            waiting.future.result(WAIT_S)
        made.join(WAIT_S)
        assert isinstance(made.failure, ZeroDivisionError)
        assert len(told) == 1


def test_close_tells_those_who_wait() -> None:
    with engine(Doubler(), start=False) as made:
        waiting = made.submit(pieces(1))
    with pytest.raises(Unavailable, match="shutting down"):
        waiting.future.result(WAIT_S)
    with pytest.raises(Unavailable):
        made.submit(pieces(2))


class Overtaken(Doubler):
    """Submits an interactive request from within its first bulk batch, before each layer."""

    def __init__(self, layers: int, urgent: int) -> None:
        super().__init__(layers=0)
        self.engine: Engine[Piece] | None = None
        self.urgent: list[Request] = []
        self.finished_inside: list[bool] = []
        self._urgent_count = urgent
        self._steps = layers

    def forward(self, batch: Sequence[Piece], preempt: Callable[[], None]) -> NDArray[np.float32]:
        assert self.engine is not None
        rows = super().forward(batch, preempt)
        if batch[0].number < FIRST_URGENT:
            for step in range(self._steps):
                self.urgent.append(self.engine.submit([Piece(FIRST_URGENT + step, self._urgent_count)]))
                preempt()
                self.finished_inside.append(self.urgent[-1].future.done())
        return rows


def test_interactive_requests_overtake_a_bulk_batch_between_its_layers() -> None:
    backend = Overtaken(layers=3, urgent=10)
    with engine(backend, start=False) as made:
        backend.engine = made
        bulk = made.submit(pieces(1, 2, count=200))
        made.start()
        assert first_column(bulk) == [1, 2]
    assert backend.finished_inside == [True, True, True]
    assert backend.batches == [[1, 2], [1000], [1001], [1002]]


def test_a_bulk_batch_is_overtaken_by_no_more_than_its_own_tokens() -> None:
    backend = Overtaken(layers=6, urgent=100)
    with engine(backend, start=False) as made:
        backend.engine = made
        bulk = made.submit(pieces(1, count=250))
        made.start()
        assert first_column(bulk) == [1]
        assert [first_column(request) for request in backend.urgent] == [[FIRST_URGENT + step] for step in range(6)]
    assert backend.finished_inside == [True, True, True, False, False, False]


def test_a_device_lost_while_overtaking_is_told_to_both() -> None:
    def lose_small(batch: Sequence[Piece]) -> None:
        if batch[0].count < 50:
            raise DeviceLost("gone")

    backend = Overtaken(layers=1, urgent=10)
    backend._fault = lose_small
    with engine(backend, start=False) as made:
        backend.engine = made
        bulk = made.submit(pieces(1, count=200))
        made.start()
        with pytest.raises(Unavailable, match="device is lost"):
            bulk.future.result(WAIT_S)
        with pytest.raises(Unavailable, match="device is lost"):
            backend.urgent[0].future.result(WAIT_S)


def test_engines_on_one_device_take_turns() -> None:
    inside, most = [0], [0]

    def watch(batch: Sequence[Piece]) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threading.Event().wait(0.01)
        inside[0] -= 1

    device = ComputeDevice()
    with engine(Doubler(watch), device=device) as one, engine(Doubler(watch), device=device) as other:
        requests = [made.submit(pieces(number, count=900)) for number in range(6) for made in (one, other)]
        for request in requests:
            request.future.result(WAIT_S)
    assert most == [1]


@pytest.mark.parametrize(("pads", "tokens", "ratio"), [(True, 60, 0.1), (False, 54, 0.0)])
def test_batches_are_counted(pads: bool, tokens: int, ratio: float) -> None:
    metrics = Metrics()
    with engine(Doubler(), metrics=metrics, start=False, limits=replace(LIMITS, pads=pads)) as made:
        request = made.submit([Piece(1, 30), Piece(2, 24)])
        made.start()
        first_column(request)
    assert value(metrics, "sonde_tokens_total") == 54
    assert value(metrics, "sonde_batch_items_sum") == 2
    assert value(metrics, "sonde_batch_tokens_sum") == tokens
    assert value(metrics, "sonde_batch_padding_ratio_sum") == pytest.approx(ratio)
    assert value(metrics, "sonde_queue_items") == 0


@pytest.mark.parametrize("runners", [1, 2])
def test_items_without_cost_are_computed(runners: int) -> None:
    with engine(Doubler(), device=ComputeDevice(runners)) as made:
        rows = made.submit([Piece(3, count=0), Piece(4, count=0)]).future.result(WAIT_S)
    assert rows.tolist() == [[3, 6], [4, 8]]


class Threads:
    """The names of the threads that compute."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, batch: Sequence[Piece]) -> None:
        self.names.append(threading.current_thread().name)


async def rows_of(*requests: Request) -> list[list[float]]:
    waiting = [wait_for_rows(request) for request in requests]
    return [rows[:, 0].tolist() for rows in await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)]


def test_the_event_loop_computes_few_tokens_in_one_batch() -> None:
    threads = Threads()
    backend = Doubler(threads)

    async def submit_three(made: Engine[Piece]) -> list[list[float]]:
        return await rows_of(*(made.submit(pieces(number)) for number in (1, 2, 3)))

    with engine(backend, loop_tokens=30) as made:
        assert asyncio.run(submit_three(made)) == [[1], [2], [3]]
    assert backend.batches == [[1, 2, 3]]
    assert threads.names == [threading.current_thread().name]


def test_requests_of_neighbouring_turns_share_a_batch_of_the_event_loop() -> None:
    """As those over gRPC, whose parts come in turns of their own."""
    backend = Doubler()

    async def submit_in_turns(made: Engine[Piece]) -> list[list[float]]:
        requests = []
        for number in (1, 2, 3):
            requests.append(made.submit(pieces(number)))
            for _ in range(4):
                await asyncio.sleep(0)
        return await rows_of(*requests)

    with engine(backend, loop_tokens=30) as made:
        assert asyncio.run(submit_in_turns(made)) == [[1], [2], [3]]
    assert backend.batches == [[1, 2, 3]]


def test_runners_compute_more_tokens_than_the_event_loop_may() -> None:
    threads = Threads()

    async def submit(made: Engine[Piece]) -> list[list[float]]:
        return await rows_of(made.submit(pieces(1, 2, 3, count=11)))

    with engine(Doubler(threads), loop_tokens=30) as made:
        assert asyncio.run(submit(made)) == [[1, 2, 3]]
    assert set(threads.names) == {"engine-m-0"}


def test_the_event_loop_leaves_large_items_to_runners() -> None:
    threads = Threads()
    backend = Doubler(threads)

    async def submit_both(made: Engine[Piece]) -> list[list[float]]:
        requests = made.submit(pieces(1)), made.submit(pieces(2, count=90)), made.submit(pieces(3))
        for _ in range(50):  # more turns than the loop takes for all that it computes
            await asyncio.sleep(0)
        assert backend.batches == [[1, 3]]
        assert not made._loop_is_due
        made.start()
        return await rows_of(*requests)

    with engine(backend, loop_tokens=30, start=False) as made:
        assert asyncio.run(submit_both(made)) == [[1], [2], [3]]
    assert threads.names == [threading.current_thread().name, "engine-m-0"]


def test_the_event_loop_computes_what_waits_in_batches_with_turns_between() -> None:
    threads, turns = Threads(), 0
    backend = Doubler(threads)

    async def submit_many(made: Engine[Piece]) -> list[list[float]]:
        nonlocal turns
        rows = asyncio.ensure_future(rows_of(*(made.submit(pieces(number)) for number in range(8))))
        while not rows.done():
            turns += bool(backend.batches)
            await asyncio.sleep(0)
        return await rows

    with engine(backend, loop_tokens=30) as made:
        assert asyncio.run(submit_many(made)) == [[number] for number in range(8)]
    assert backend.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert turns >= 2
    assert set(threads.names) == {threading.current_thread().name}


def test_runners_help_once_many_batches_wait() -> None:
    threads, helped = Threads(), threading.Event()

    def compute(batch: Sequence[Piece]) -> None:
        threads(batch)
        if threads.names[-1] == "engine-m-0":
            helped.set()
        helped.wait(WAIT_S)  # the loop would compute them all before a busy machine lets the runner begin

    async def submit_many(made: Engine[Piece]) -> list[list[float]]:
        return await rows_of(*(made.submit(pieces(number)) for number in range(40)))

    with engine(Doubler(compute), loop_tokens=30) as made:
        assert asyncio.run(submit_many(made)) == [[number] for number in range(40)]
    assert "engine-m-0" in threads.names


def test_runners_compute_small_requests_that_are_bulk() -> None:
    threads = Threads()

    async def submit(made: Engine[Piece]) -> list[list[float]]:
        return await rows_of(made.submit(pieces(1), bulk=True))

    with engine(Doubler(threads), loop_tokens=30) as made:
        assert asyncio.run(submit(made)) == [[1]]
    assert set(threads.names) == {"engine-m-0"}


def test_a_fault_on_the_event_loop_fails_one_request() -> None:
    def fail_two(batch: Sequence[Piece]) -> None:
        if any(item.number == 2 for item in batch):
            raise ValueError("two")

    async def submit_two(made: Engine[Piece]) -> tuple[list[list[float]], BaseException | None]:
        good, bad = made.submit(pieces(1)), made.submit(pieces(2))
        rows = await rows_of(good)
        return rows, bad.future.exception(WAIT_S)

    with engine(Doubler(fail_two), loop_tokens=30) as made:
        rows, error = asyncio.run(submit_two(made))
    assert rows == [[1]]
    assert isinstance(error, BackendError)


def test_a_device_lost_on_the_event_loop_ends_the_engine() -> None:
    def lose(batch: Sequence[Piece]) -> None:
        raise DeviceLost("gone")

    async def submit(made: Engine[Piece]) -> BaseException | None:
        request = made.submit(pieces(1))
        return await asyncio.to_thread(request.future.exception, WAIT_S)

    failures: list[Exception] = []
    with engine(Doubler(lose), loop_tokens=30, on_failure=failures.append) as made:
        error = asyncio.run(submit(made))
        assert isinstance(made.failure, DeviceLost)
    assert isinstance(error, Unavailable)
    assert [type(one) for one in failures] == [DeviceLost]
