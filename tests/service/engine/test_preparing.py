"""Items that a runner prepares: outside of its room on the device, each request by itself, and none in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from models.errors import DeviceLost, ImageError, SondeError
from models.runtime.device import ComputeDevice
from service.engine.cache import RowCache
from service.engine.engine import Engine
from service.engine.request import Item, Request, Unprepared
from service.engine.scheduler import BatchLimits
from service.errors import BackendError, ClientGone, Unavailable
from service.metrics import Metrics
from tests.fakes.compute_threads import noting
from tests.fakes.item import Doubler, Piece

WAIT_S = 5.0


class RawPiece(Unprepared):
    """A piece that calls `prepare` before it can be computed."""

    def __init__(self, number: int, prepare: Callable[[int], None] = lambda number: None, count: int = 10) -> None:
        self.number = number
        self.count = count
        self.key = b"%d" % number
        self._prepare = prepare

    def prepared(self) -> Item:
        self._prepare(self.number)
        return Piece(self.number, self.count)


@contextmanager
def engine(
    backend: Doubler, device: ComputeDevice, cache: RowCache | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Engine[Item]]:
    """A started engine of one runner."""
    made: Engine[Item] = Engine(
        "m",
        "1",
        backend,  # type: ignore[arg-type]  # what it computes are pieces
        2,
        limits=BatchLimits(max_tokens=1000, interactive_tokens=100),
        cache=RowCache(0) if cache is None else cache,
        metrics=Metrics(),
        device=device,
        clock=clock,
        prepares=True,
    )
    made.start()
    try:
        yield made
    finally:
        made.close()


def test_a_runner_prepares_items_without_room_on_the_device() -> None:
    device, busy = ComputeDevice(), list[tuple[str, int]]()
    with engine(Doubler(), device) as made:
        asked = made.submit([RawPiece(3, lambda _: busy.append((threading.current_thread().name, device.busy)))])
        assert asked.future.result(WAIT_S).tolist() == [[3, 6]]
    assert busy == [("engine-m-0", 0)]


@contextmanager
def held_runner(made: Engine[Item]) -> Iterator[None]:
    """A runner that does nothing until the end of the block, so that what comes meanwhile shares a batch."""
    begun, resume = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        begun.set()
        assert resume.wait(WAIT_S)

    made.submit([RawPiece(0, hold)])
    assert begun.wait(WAIT_S)
    yield
    resume.set()


@pytest.mark.parametrize(
    ("fault", "expected"), [(ImageError("image: broken"), "image: broken"), (OSError("no"), "could not be prepared")]
)
def test_an_item_that_cannot_be_prepared_fails_its_request_alone(fault: Exception, expected: str) -> None:
    def fail(number: int) -> None:
        raise fault

    backend = Doubler()
    with engine(backend, ComputeDevice()) as made:
        with held_runner(made):
            broken, whole = made.submit([RawPiece(1, fail), RawPiece(2)]), made.submit([RawPiece(3)])
        assert whole.future.result(WAIT_S).tolist() == [[3, 6]]
        error = broken.future.exception(WAIT_S)
    assert isinstance(error, ImageError if isinstance(fault, SondeError) else BackendError)
    assert expected in str(error)
    assert backend.batches == [[0], [3]]


def test_a_request_that_ended_meanwhile_is_not_prepared() -> None:
    prepared: list[int] = []
    with engine(Doubler(), ComputeDevice()) as made:
        with held_runner(made):
            first = made.submit([RawPiece(1, lambda _: second.fail(ClientGone("the caller hung up")))])
            second = made.submit([RawPiece(2, prepared.append)])
        first.future.result(WAIT_S)
    assert prepared == []


def test_an_item_whose_row_is_cached_is_not_prepared() -> None:
    prepared: list[int] = []
    backend = Doubler()
    with engine(backend, ComputeDevice(), RowCache(10_000)) as made:
        made.submit([RawPiece(1, prepared.append)]).future.result(WAIT_S)
        again = made.submit([RawPiece(1, prepared.append), RawPiece(2, prepared.append)])
        assert again.future.result(WAIT_S).tolist() == [[1, 2], [2, 4]]
    assert prepared == [1, 2]
    assert backend.batches == [[1], [2]]


def test_what_a_broken_request_has_prepared_is_not_computed() -> None:
    def fail(number: int) -> None:
        raise ImageError("image: broken")

    backend = Doubler()
    with engine(backend, ComputeDevice()) as made:
        with held_runner(made):
            broken, whole = made.submit([RawPiece(1), RawPiece(2, fail)]), made.submit([RawPiece(3)])
        assert whole.future.result(WAIT_S).tolist() == [[3, 6]]
        assert isinstance(broken.future.exception(WAIT_S), ImageError)
    assert backend.batches == [[0], [3]]


@pytest.mark.parametrize("cached", [False, True])
def test_the_time_of_preparing_what_overtakes_is_not_that_of_the_batch(cached: bool) -> None:
    now = [0.0]

    def take_long(_: int) -> None:
        now[0] += 10

    class Slow(RawPiece):
        """A piece whose key takes long, too."""

        @property
        def key(self) -> bytes:
            take_long(0)
            return b"1"

        @key.setter
        def key(self, value: bytes) -> None:
            pass

    def submit_small(batch: Sequence[Piece]) -> None:
        if len(batch) > 1:
            made.submit([Slow(1)] if cached else [RawPiece(1, take_long)])

    cache = RowCache(10_000)
    with engine(Doubler(submit_small), ComputeDevice(), cache, clock=lambda: now[0]) as made:
        if cached:
            made.submit([RawPiece(1)]).future.result(WAIT_S)
        bulk = made.submit([RawPiece(number) for number in range(2, 20)])
        bulk.future.result(WAIT_S)
    assert (now[0], bulk.inference_s) == (10, 0)


def test_a_batch_keeps_its_threads_while_what_overtakes_it_is_prepared() -> None:
    used: list[int] = []

    def submit_small(batch: Sequence[Piece]) -> None:
        if len(batch) > 1:
            used.clear()
            made.submit([RawPiece(1)])

    with engine(Doubler(submit_small), ComputeDevice(runners=2, threads=4, compute_threads=noting(used))) as made:
        made.submit([RawPiece(number) for number in range(2, 20)]).future.result(WAIT_S)
    assert used == []


def test_interactive_requests_overtake_a_bulk_batch_between_two_items_that_it_prepares() -> None:
    prepared: list[int] = []

    def submit_small(number: int) -> None:
        prepared.append(number)
        small.append(made.submit([RawPiece(100 + number, prepared.append)]))

    backend, small = Doubler(), list[Request]()
    with engine(backend, ComputeDevice()) as made:
        bulk = made.submit([RawPiece(number, submit_small, 60) for number in range(1, 4)])
        assert bulk.future.result(WAIT_S).tolist() == [[1, 2], [2, 4], [3, 6]]
        assert [asked.future.result(WAIT_S).tolist() for asked in small] == [
            [[number, 2 * number]] for number in (101, 102, 103)
        ]
    assert prepared[:5] == [1, 101, 2, 102, 3]
    assert backend.batches[:2] == [[101], [102]]


def test_a_batch_being_prepared_is_overtaken_by_no_more_than_its_own_tokens() -> None:
    def submit_small(number: int) -> None:
        made.submit([RawPiece(100 + number, count=100)])

    backend = Doubler()
    with engine(backend, ComputeDevice()) as made:
        bulk = made.submit([RawPiece(number, submit_small, 60) for number in range(1, 7)])
        bulk.future.result(WAIT_S)
    overtook = backend.batches[: backend.batches.index([1, 2, 3, 4, 5, 6])]
    assert overtook == [[101], [102], [103], [104]]


def test_a_device_lost_while_a_batch_is_prepared_is_told_to_both() -> None:
    def lose_small(batch: Sequence[Piece]) -> None:
        raise DeviceLost("gone")

    def submit_small(number: int) -> None:
        small.append(made.submit([RawPiece(9)]))

    small: list[Request] = []
    with engine(Doubler(lose_small), ComputeDevice()) as made:
        bulk = made.submit([RawPiece(number, submit_small, 60) for number in (1, 2)])
        for asked in (bulk, *small):
            with pytest.raises(Unavailable, match="device is lost"):
                asked.future.result(WAIT_S)
