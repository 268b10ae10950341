"""Admission: what does not fit is refused before any work, with the time after which it may fit."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.errors import Overloaded
from service.metrics import Metrics
from service.serving.servable import Admission


def admission(max_items: int = 10, max_tokens: int = 100, metrics: Metrics | None = None) -> Admission:
    return Admission(max_items, max_tokens, metrics or Metrics())


def no_speed() -> float:
    return 0.0


@pytest.mark.parametrize(
    ("held", "more", "fits"),
    [
        ((9, 90), (1, 10), True),  # to the brim
        ((9, 10), (2, 10), False),  # one item too many
        ((1, 90), (1, 11), False),  # one token too many
        ((0, 0), (11, 1000), True),  # too large for all the room, but alone
        ((1, 0), (11, 1), False),  # too large, and not alone
        ((1, 0), (1, 1000), True),  # no token is inside
    ],
)
def test_work_is_let_in_while_there_is_room(held: tuple[int, int], more: tuple[int, int], fits: bool) -> None:
    gate = admission()
    entered = []
    with ExitStack() as stack:
        stack.enter_context(gate.admit(*held, no_speed))
        if not fits:
            stack.enter_context(pytest.raises(Overloaded))
        with gate.admit(*more, no_speed):
            entered.append((gate.items, gate.tokens))
    assert entered == ([(held[0] + more[0], held[1] + more[1])] if fits else [])


def test_room_is_given_back() -> None:
    gate = admission()
    for _ in range(3):
        with gate.admit(10, 100, no_speed):
            assert (gate.items, gate.tokens) == (10, 100)
    assert (gate.items, gate.tokens) == (0, 0)


def test_room_is_given_back_after_an_error() -> None:
    gate = admission()
    with pytest.raises(ValueError, match="broken"), gate.admit(10, 100, no_speed):
        raise ValueError("broken")
    assert (gate.items, gate.tokens) == (0, 0)


@pytest.mark.parametrize("more", [(11, 1), (1, 101)])
def test_a_refused_request_takes_no_room(more: tuple[int, int]) -> None:
    gate = admission()
    with gate.admit(1, 1, no_speed):
        with pytest.raises(Overloaded), gate.admit(*more, no_speed):
            pytest.fail("it was let in")
        assert (gate.items, gate.tokens) == (1, 1)


@pytest.mark.parametrize(
    ("speed", "retry_after_s"),
    [
        (100.0, 1),  # the 100 tokens inside take a second
        (30.0, 4),  # rounded up
        (1e6, 1),  # never 0
        (0.0, 1),  # nothing was computed yet
    ],
)
def test_the_answer_says_when_the_backlog_is_gone(speed: float, retry_after_s: int) -> None:
    gate = admission()
    with gate.admit(1, 100, no_speed), pytest.raises(Overloaded) as refused, gate.admit(1, 1, lambda: speed):
        pytest.fail("it was let in")
    assert refused.value.retry_after_s == retry_after_s
    assert str(refused.value) == f"100 tokens are waiting, 100 are allowed; try again in {retry_after_s} s"


def test_items_without_tokens_are_refused_too() -> None:
    gate = admission()
    with (
        gate.admit(10, 0, no_speed),
        pytest.raises(Overloaded, match=r"^10 items are waiting, 10 are allowed; try again in 1 s$"),
    ):
        gate.admit(1, 1, no_speed).__enter__()


def test_the_speed_is_asked_for_only_when_it_is_needed() -> None:
    asked = []

    def speed() -> float:
        asked.append(True)
        return 1.0

    gate = admission()
    with gate.admit(10, 1, speed):
        assert asked == []
        with pytest.raises(Overloaded):
            gate.admit(1, 1, speed).__enter__()
    assert asked == [True]


@pytest.mark.parametrize(("more", "reason"), [((11, 1), "items"), ((1, 101), "tokens"), ((11, 101), "items")])
def test_what_is_refused_is_counted_by_reason(more: tuple[int, int], reason: str) -> None:
    metrics = Metrics()
    gate = admission(metrics=metrics)
    with gate.admit(1, 1, no_speed), pytest.raises(Overloaded):
        gate.admit(*more, no_speed).__enter__()
    shed = {
        name: metrics.registry.get_sample_value("sonde_shed_total", {"reason": name})
        for name in ("items", "tokens", "not_ready")
    }
    assert shed == {"items": 0, "tokens": 0, "not_ready": 0, reason: 1}
