"""Bodies with readings, parsed part by part: the same as at once, whatever their form, and no more than allowed."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api import body_counts, readings_parts
from service.api.body_counts import BodyCounts
from service.api.json_body import _parse_with_readings
from service.api.readings_parts import cut_readings
from service.config import Settings
from service.errors import BodyTooLarge, InvalidRequest

ROWS = [[index + 0.5, index] for index in range(1000)]
RECORDS = [{"a": index, "b]}": 0.5} for index in range(1000)]
TIMES = [f"2026-01-01T00:{index // 60 % 60:02}:{index % 60:02}Z" for index in range(1000)]
BODIES: dict[str, dict[str, Any]] = {
    "rows": {"model": "m", "series": ROWS},
    "records": {"records": RECORDS, "model": "m"},
    "times": {"model": "m", "series": ROWS, "timestamps": TIMES},
    "numbers as times": {"timestamps": list(range(1000)), "series": ROWS, "model": "m"},
    "both forms": {"series": ROWS[:200] + RECORDS[:200], "model": "m"},
    "no rows": {"series": [], "records": [[]], "timestamps": [{}]},
    "names that look like an end": {"records": [{"a}, {": 1, "b}]": 2}] * 300},
    "names full of ends": {"records": [{"}, " * 30: 1, '\\"}]' * 30: index} for index in range(300)]},
    "texts that look like lists": {"model": '"series": [1, 2]', "input": ["],[", '"records":[']},
    "lists of other names": {"x": {"series": ROWS[:50]}, "series": ROWS},
    "a model called series": {"model": "series", "series": ROWS},
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings_parts, "_PART_BYTES", 100)
    monkeypatch.setattr(readings_parts, "_MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(body_counts, "_WINDOW_BYTES", 7)


def parse(body: bytes, most: int = 5000) -> Any:
    return _parse_with_readings(body, Settings.read({"max_readings": most, "max_inputs": 2048}))


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("name", BODIES)
def test_parts_are_the_whole(name: str, indent: int | None) -> None:
    assert parse(json.dumps(BODIES[name], indent=indent).encode()) == BODIES[name]


def test_long_lists_are_not_left_in_the_rest() -> None:
    plain = ("rows", "records", "times", "numbers as times", "a model called series")
    for name in (*plain, "names that look like an end", "names full of ends"):
        assert len(cut_readings(json.dumps(BODIES[name]).encode(), 5000).rest) < 200


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.text('a]}[{",:\\ é'))), st.text())
@pytest.mark.slow
def test_any_lists_are_the_same(rows: list[list[float | str]], text: str) -> None:
    body = {"a": text, "series": rows, "timestamps": [text, *map(len, rows)], "b": [text, {"series": rows}]}
    assert parse(orjson.dumps(body)) == body


def test_the_last_of_two_lists_counts() -> None:
    assert parse(b'{"series": [[1], [2]], "series": [[3]]}') == {"series": [[3]]}


@pytest.mark.parametrize(
    "body", [b'{"series": [[1], [2]', b'{"series": [[1], [2], NaN]}', b'{"series": [[1] [2]]}', b'{"series":[']
)
def test_what_is_no_json_is_none_in_parts_either(body: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        parse(body)


@pytest.mark.parametrize("name", ["records", "series", "timestamps"])
def test_more_than_allowed_is_refused_at_the_first_part_that_has_more(name: str) -> None:
    body = b'{"%b": [%b NaN]}' % (name.encode(), b"[1]," * 10_000)
    with pytest.raises(InvalidRequest, match=f"{name} has more than 500 items, 500 are allowed") as caught:
        parse(body, most=500)
    assert caught.value.param == name
    parse(b'{"%b": [%b]}' % (name.encode(), b",".join([b"[1]"] * 500)), most=500)


def test_a_row_without_end_stays_in_the_rest_and_is_counted_there() -> None:
    body = b'{"series": [[%b]]}' % b",".join([b"1"] * 10_000)
    cut = cut_readings(body, 5000)
    assert cut.rest == body
    with pytest.raises(BodyTooLarge, match="the body has 9999 values, it may have 500"):
        BodyCounts(strings=100, lists=100, values=500).require_within(cut.rest)


SCALARS = st.text('a"\\,[{') | st.integers(-(2**60), 2**60)


@pytest.mark.slow
@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text('"\\a'), inner)))
def test_counts_are_those_of_the_parsed_body(body: Any) -> None:
    counts, has_constants = body_counts._count(orjson.dumps(body))
    strings, lists, values = count(body)
    assert (counts.strings, counts.lists, counts.values) == (strings, lists, values)
    assert not has_constants


def count(node: Any) -> tuple[int, int, int]:
    """Strings, lists and objects, and commas of a value."""
    if isinstance(node, str):
        return 1, 0, 0
    if not isinstance(node, list | dict):
        return 0, 0, 0
    inner = [count(item) for item in (node if isinstance(node, list) else node.values())]
    keys = len(node) if isinstance(node, dict) else 0
    sums = [sum(column) for column in zip(*inner, strict=True)] or [0, 0, 0]
    return sums[0] + keys, sums[1] + 1, sums[2] + max(len(node) - 1, 0)


@pytest.mark.parametrize("least", [1, 2**40])
def test_upper_bounds_count_what_is_within_strings_too(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_counts, "_LONG_BYTES", least)
    counts = body_counts._most_counts(orjson.dumps({"a": ["[{,", 1], "b": {}}))
    assert (counts.strings, counts.lists, counts.values) == (3, 5, 3)


@pytest.mark.parametrize("strings", [1, body_counts._FEW, body_counts._FEW + 1, 10_000])
def test_long_bodies_of_few_and_of_many_strings_are_counted_alike(strings: int) -> None:
    body = orjson.dumps(["x" * body_counts._LONG_BYTES, *["{"] * (strings - 1)])
    counts = body_counts._most_counts(body)
    assert (counts.strings, counts.lists, counts.values) == (strings, strings, strings - 1)


@pytest.mark.parametrize("text", ["\\" * 100_001, '"' * 50_000, '\\"' * 50_000])
def test_counting_strings_full_of_escapes_takes_linear_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_counts, "_WINDOW_BYTES", 4096)
    began = time.thread_time()
    counts, _ = body_counts._count(orjson.dumps({"a": text}))
    assert (counts.strings, counts.lists, counts.values) == (2, 1, 0)
    assert time.thread_time() - began < 1
