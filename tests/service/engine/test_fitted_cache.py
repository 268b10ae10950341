"""Fitted objects: found again by content, bounded by the bytes they say they take."""

from __future__ import annotations

import pytest

from service.engine.cache import LruCache, content_key


def fitted(*entries: tuple[str, int], room: int = 100) -> LruCache[str, str]:
    """A cache of `room` bytes, and some put in: the value of "a" is "A"."""
    cache: LruCache[str, str] = LruCache(room)
    for key, size in entries:
        cache.put(key, key.upper(), size)
    return cache


def known(cache: LruCache[str, str], keys: str) -> str:
    """Those of the keys that are there, from the least recently used on; asking does not count."""
    return "".join(key for key in cache._entries if key in keys)


def test_what_was_put_in_is_found_again() -> None:
    cache = fitted(("a", 10), ("b", 20))
    assert [cache.get(key) for key in "abc"] == ["A", "B", None]
    assert cache.bytes == 30


@pytest.mark.parametrize(
    ("entries", "kept", "held"),
    [
        ([("a", 50), ("b", 50)], "ab", 100),  # just fits
        ([("a", 50), ("b", 50), ("c", 1)], "bc", 51),  # the oldest goes
        ([("a", 30), ("b", 30), ("c", 30), ("d", 90)], "d", 90),  # as many as it takes
        ([("a", 50), ("b", 101)], "a", 50),  # too large by itself: pushes nothing out
        ([("a", 50), ("a", 50)], "a", 50),  # once, not twice
    ],
)
def test_the_bytes_are_bounded(entries: list[tuple[str, int]], kept: str, held: int) -> None:
    cache = fitted(*entries)
    assert (known(cache, "abcd"), cache.bytes) == (kept, held)


def test_what_is_used_stays() -> None:
    cache = fitted(("a", 40), ("b", 40))
    cache.get("a")
    cache.put("c", "C", 40)
    assert known(cache, "abc") == "ac"


def test_no_room_keeps_nothing() -> None:
    cache = fitted(("a", 1), room=0)
    assert (cache.get("a"), cache.bytes) == (None, 0)


def test_equal_content_has_equal_keys_whatever_the_order_of_its_names() -> None:
    assert content_key("1", {"a": [1, "é"], "b": None}) == content_key("1", {"b": None, "a": [1, "é"]})


@pytest.mark.parametrize(
    ("version", "content"),
    [
        ("2", {"texts": ["a", "b"]}),  # another model
        ("1", {"texts": ["b", "a"]}),  # another order
        ("1", {"texts": ["a,b"]}),
        ("1", {"texts": ["a", "b "]}),
        ("1", {"texts": ["a", "b"], "k": None}),
        ("1", ["a", "b"]),
    ],
)
def test_other_content_has_another_key(version: str, content: object) -> None:
    assert content_key(version, content) != content_key("1", {"texts": ["a", "b"]})
