"""Requests and tokens of a key a minute: what is over the limit waits as long as it is told to."""

from __future__ import annotations

import pytest

from service.auth import Key
from service.errors import RateLimited
from service.key_limits import KeyLimits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def key(name: str = "key-1", **limits: int) -> Key:
    return Key(name, ("infer",), "", 0, **limits)  # type: ignore[arg-type]


def test_a_key_without_limits_is_always_admitted() -> None:
    limits = KeyLimits()
    for _ in range(10_000):
        limits.admit(key())
        limits.charge(key(), 1_000_000)


def test_requests_beyond_the_limit_are_refused_until_the_time_that_is_told() -> None:
    clock = Clock()
    limits, one = KeyLimits(clock=clock), key(requests_per_minute=6)
    for _ in range(6):
        limits.admit(one)
    with pytest.raises(RateLimited, match=r"key-1 may use 6 requests a minute .* in 10 s") as refused:
        limits.admit(one)
    limits.admit(key("key-2", requests_per_minute=6))
    clock.now = refused.value.retry_after_s - 0.01
    with pytest.raises(RateLimited):
        limits.admit(one)
    clock.now = refused.value.retry_after_s
    limits.admit(one)


def test_a_request_may_take_more_tokens_than_are_left_and_the_next_one_waits() -> None:
    clock = Clock()
    limits, one = KeyLimits(clock=clock), key(tokens_per_minute=60)
    limits.admit(one)
    limits.charge(one, 90)
    with pytest.raises(RateLimited, match="60 tokens a minute") as refused:
        limits.admit(one)
    assert refused.value.retry_after_s == 30
    clock.now = 31
    limits.admit(one)


def test_what_was_not_used_does_not_add_up() -> None:
    clock = Clock()
    limits, one = KeyLimits(clock=clock), key(requests_per_minute=2)
    limits.admit(one)
    clock.now = 3600
    limits.admit(one)
    limits.admit(one)
    with pytest.raises(RateLimited):
        limits.admit(one)


def test_a_process_has_its_share_and_at_least_one() -> None:
    for share, admitted in ((0.5, 2), (0.01, 1)):
        limits, one = KeyLimits(share, Clock()), key(requests_per_minute=4)
        for _ in range(admitted):
            limits.admit(one)
        with pytest.raises(RateLimited):
            limits.admit(one)
