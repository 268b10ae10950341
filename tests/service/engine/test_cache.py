"""The cache of rows: never more bytes than allowed, the least recently used goes first, and versions never mix."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.cache import _OVERHEAD_BYTES, RowCache

WIDTH = 8
ENTRY_BYTES = 1 + 4 * WIDTH + _OVERHEAD_BYTES  # a key of one byte
WAIT_S = 20.0


def row(number: float, width: int = WIDTH) -> NDArray[np.float32]:
    return np.full(width, number, dtype=np.float32)


def cache_of(*keys: bytes, room: int = 3) -> RowCache:
    """A cache with room for so many entries, and some put in."""
    cache = RowCache(room * ENTRY_BYTES)
    for number, key in enumerate(keys):
        cache.put("v", key, row(number))
    return cache


def known(cache: RowCache, keys: bytes, version: str = "v") -> bytes:
    """Those of the one-byte keys that are there; asking counts as use."""
    rows = cache.get_many(version, [bytes([key]) for key in keys])
    return bytes(key for key, found in zip(keys, rows, strict=True) if found is not None)


def test_a_row_comes_back_as_it_was_put_in() -> None:
    found = cache_of(b"a", b"b").get_many("v", [b"b", b"x", b"a"])
    assert [None if one is None else one.tolist() for one in found] == [[1.0] * WIDTH, None, [0.0] * WIDTH]


def test_the_oldest_goes_first() -> None:
    cache = cache_of(b"a", b"b", b"c", b"d")
    assert known(cache, b"abcd") == b"bcd"


def test_what_is_asked_for_stays() -> None:
    cache = cache_of(b"a", b"b", b"c")
    cache.get_many("v", [b"a"])
    cache.put("v", b"d", row(4))
    assert known(cache, b"abcd") == b"acd"


def test_all_keys_of_one_question_count_as_used_in_their_order() -> None:
    cache = cache_of(b"a", b"b", b"c")
    cache.get_many("v", [b"b", b"a"])
    for key in (b"d", b"e"):
        cache.put("v", key, row(4))
    assert known(cache, b"abcde") == b"ade"


@pytest.mark.parametrize("spare", [0, ENTRY_BYTES - 1])
def test_bytes_are_counted_with_the_overhead_and_never_exceeded(spare: int) -> None:
    cache = RowCache(2 * ENTRY_BYTES + spare)
    for key in b"abcdef":
        cache.put("v", bytes([key]), row(key))
    assert (len(cache), cache.bytes) == (2, 2 * ENTRY_BYTES)


def test_a_row_too_large_for_the_cache_pushes_nothing_out() -> None:
    cache = cache_of(b"a", b"b")
    cache.put("v", b"z", row(1, width=100 * WIDTH))
    cache.put("v", b"z" * 4 * ENTRY_BYTES, row(1))
    assert (known(cache, b"abz"), cache.bytes) == (b"ab", 2 * ENTRY_BYTES)


def test_one_large_row_pushes_out_as_many_as_it_takes() -> None:
    cache = cache_of(b"a", b"b", b"c")
    cache.put("v", b"z", row(1, width=WIDTH + ENTRY_BYTES // 4))
    assert known(cache, b"abcz") == b"cz"


def test_a_key_put_in_again_is_neither_counted_nor_changed() -> None:
    cache = cache_of(b"a")
    cache.put("v", b"a", row(9))
    (found,) = cache.get_many("v", [b"a"])
    assert found is not None
    assert (found[0], len(cache), cache.bytes) == (0.0, 1, ENTRY_BYTES)


def test_a_size_of_0_keeps_nothing() -> None:
    cache = RowCache(0)
    cache.put("v", b"", row(1, width=0))
    cache.put("v", b"a", row(1))
    assert (cache.get_many("v", [b"", b"a"]), len(cache), cache.bytes) == ([None, None], 0, 0)


def test_versions_never_mix() -> None:
    cache = RowCache(10 * ENTRY_BYTES)
    cache.put("m:1", b"a", row(1))
    cache.put("m:2", b"a", row(2))
    first, second, third = (cache.get_many(version, [b"a"])[0] for version in ("m:1", "m:2", "m:3"))
    assert first is not None
    assert second is not None
    assert (first[0], second[0], third) == (1.0, 2.0, None)


def test_rows_are_copied_so_that_a_batch_is_not_kept_alive_or_changed() -> None:
    batch = np.zeros((100, WIDTH), dtype=np.float32)
    cache = RowCache(10 * ENTRY_BYTES)
    cache.put("v", b"a", batch[3])
    batch[3] = 7
    (found,) = cache.get_many("v", [b"a"])
    assert found is not None
    assert found.base is None
    assert found.tolist() == [0.0] * WIDTH


@given(st.integers(0, 2000), st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 200), st.booleans())))
def test_the_books_are_right_after_any_use(room: int, uses: list[tuple[bytes, int, bool]]) -> None:
    cache = RowCache(room)
    for key, width, asks in uses:
        if asks:
            cache.get_many("v", [key])
        else:
            cache.put("v", key, row(1, width))
        assert cache.bytes <= room
        assert cache.bytes == booked(cache)


def booked(cache: RowCache) -> int:
    return sum(len(key) + kept.nbytes + _OVERHEAD_BYTES for (_, key), (kept, _) in cache._rows._entries.items())


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads interrupt each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_several_threads_may_use_it_at_once() -> None:
    cache = cache_of(room=5)

    def use(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for number in chance.integers(0, 12, 3000).tolist():
            cache.put("v", b"%d" % (number % 10), row(number % 10))
            (found,) = cache.get_many("v", [b"%d" % (number % 10)])
            assert found is None or found[0] == number % 10

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4), timeout=WAIT_S))
    assert 0 < cache.bytes == booked(cache) <= 5 * ENTRY_BYTES
