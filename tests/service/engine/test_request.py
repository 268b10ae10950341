"""Requests: rows find their place in any order, and a request ends once."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.request import Request, RowsFuture
from tests.fakes.item import request


def row(number: float) -> NDArray[np.float32]:
    return np.array([number, -number], dtype=np.float32)


def test_a_new_request_waits_for_all_its_rows() -> None:
    one = request(10, 20, 30)
    assert (one.missing, one.finished, one.future.done()) == (3, False, False)
    assert (one.rows.shape, one.rows.dtype.name) == ((3, 2), "float32")
    assert (one.started, one.inference_s, one.deadline) == (None, 0.0, None)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_last_row_completes_the_request_whatever_the_order(order: tuple[int, ...]) -> None:
    one = request(10, 20, 30)
    for index in order:
        assert not one.future.done()
        one.fill(index, row(index))
    assert one.finished
    assert one.future.result(0).tolist() == [[0, 0], [1, -1], [2, -2]]


def test_rows_are_copied_in() -> None:
    one, given = request(10), row(1)
    one.fill(0, given)
    given[:] = 9
    assert one.future.result(0).tolist() == [[1, -1]]


def test_an_error_ends_the_request() -> None:
    one = request(10, 20)
    one.fill(0, row(1))
    one.fail(ValueError("broken"))
    assert one.finished
    with pytest.raises(ValueError, match="broken"):
        one.future.result(0)


def test_the_first_error_stays() -> None:
    one = request(10)
    one.fail(ValueError("first"))
    one.fail(ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        one.future.result(0)


def test_rows_after_the_end_change_nothing() -> None:
    one = request(10, 20)
    one.fail(ValueError("broken"))
    for index in range(2):
        one.fill(index, row(1))
    assert one.missing == 2
    with pytest.raises(ValueError, match="broken"):
        one.future.result(0)


def test_an_error_after_the_last_row_changes_nothing() -> None:
    one = request(10)
    one.fill(0, row(1))
    one.fail(ValueError("late"))
    assert one.future.result(0).tolist() == [[1, -1]]


def test_an_error_that_comes_while_the_last_row_is_filled_in_wins() -> None:
    one = request(10)

    class Slow:
        """A row during whose copying the caller leaves."""

        def __array__(self, *_: object, **__: object) -> NDArray[np.float32]:
            one.fail(ValueError("late"))
            return np.zeros(2, dtype=np.float32)

    one.fill(0, Slow())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="late"):
        one.future.result(0)


def test_a_wait_ends_with_the_rows_of_another_thread() -> None:
    one = request(10)
    with pytest.raises(TimeoutError):
        one.future.result(0.01)
    filling = threading.Timer(0.05, one.fill, (0, row(1)))
    filling.start()
    assert one.future.result(10).tolist() == [[1, -1]]
    assert one.future.exception() is None
    filling.join()


def test_callbacks_are_called_once_before_and_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    one = request(10)
    told: list[RowsFuture] = []

    def fail(_: RowsFuture) -> None:
        raise RuntimeError("the event loop is closed")

    for callback in (told.append, fail, told.append):
        one.future.add_done_callback(callback)
    one.fail(ValueError("broken"))
    one.fail(ValueError("again"))
    one.future.add_done_callback(told.append)
    assert told == [one.future] * 3
    assert "a request's callback failed" in caplog.text
    assert str(one.future.exception()) == "broken"


def test_of_several_threads_one_ends_a_request() -> None:
    """Each of many requests gets one outcome, which its callback sees once."""
    for _ in range(50):
        one = request(10)
        told: list[Exception | None] = []
        one.future.add_done_callback(lambda outcome, told=told: told.append(outcome.exception()))  # type: ignore[misc]
        begin = threading.Barrier(3)

        def end(work: Callable[[], None], begin: threading.Barrier = begin) -> None:
            begin.wait()
            work()

        works = (partial(one.fill, 0, row(1)), partial(one.fail, ValueError("a")), partial(one.fail, ValueError("b")))
        threads = [threading.Thread(target=end, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == [one.future.exception()]


@pytest.mark.parametrize(
    ("batches", "seconds"),
    [
        ([(1, 1), (3, 2), (4, 1)], 4),
        ([(2, 2), (3, 2)], 3),
        ([(2, 1), (4, 1), (5, 5)], 5),
        ([(2, 1), (4, 1), (5, 2)], 3),
    ],
    ids=["one after the other", "at once", "one throughout", "one beside the last"],
)
def test_time_in_which_several_runners_computed_counts_once(batches: list[tuple[float, float]], seconds: float) -> None:
    times = iter([0, *(end for end, _ in batches)])
    one = Request([], 2, clock=lambda: next(times))
    for _, took in batches:
        one.computed(took)
    assert one.inference_s == seconds


def test_requests_are_numbered_in_the_order_of_their_making() -> None:
    numbers = [request(10).number for _ in range(3)]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]


def test_a_request_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Request([], 2).dead_line = 1.0  # type: ignore[attr-defined]
