"""Bodies that are no bodies: each is an error of ours, in our envelope, and none costs more than it must."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import orjson
import pytest
from fastapi._compat import ModelField
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from service.api import json_body
from service.api.image_bodies import read_image_body
from service.api.json_body import _loads, read_bytes
from service.api.readings_parts import MISSING, mark_missing
from tests.support.app import MakeApp

GOOD = json.dumps({"model": "fake", "input": "hello"}).encode()


def post(client: TestClient, content: bytes | Iterator[bytes], kind: str | None = "application/json") -> Any:
    return client.post("/v1/embeddings", content=content, headers={"content-type": kind} if kind else {})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"not json",
        b'{"model": "fake", "input": "a",}',
        b'{"model": "fake", "input": "\xff\xfe"}',
        b'{"model": "fake", "input": "\\ud800"}',
        b'{"model": "fake", "input": NaN}',
        b"[" * 100_000 + b"]" * 100_000,
        GOOD + GOOD,
    ],
    ids=["empty", "cut", "no json", "trailing comma", "no utf-8", "half a character", "NaN", "very deep", "twice"],
)
def test_what_is_no_json_is_malformed(client: TestClient, content: bytes) -> None:
    answer = post(client, content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_body")


@pytest.mark.parametrize("content", [b"null", b"5", b'"text"', b"[]", b"[1, 2]"])
def test_json_that_is_no_object_breaks_the_contract(client: TestClient, content: bytes) -> None:
    answer = post(client, content)
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid_request_error")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *(("embeddings", kind) for kind in ("text/plain", "application/x-www-form-urlencoded", "json", "/")),
        ("rerank", "multipart/form-data; boundary=x"),
    ],
)
def test_other_content_types_are_refused(client: TestClient, path: str, kind: str) -> None:
    answer = client.post(f"/v1/{path}", content=GOOD, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert ("image/jpeg" in answer.json()["error"]["message"]) == (path == "embeddings")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json", None, ""]
)
def test_json_by_any_of_its_names_or_none_is_read(client: TestClient, kind: str | None) -> None:
    assert post(client, GOOD, kind).status_code == 200


def test_a_body_too_large_by_its_own_account_is_not_read(make_app: MakeApp) -> None:
    client = TestClient(make_app(max_body_bytes=100))
    answer = post(client, b'{"model": "fake", "input": "%s"}' % (b"a" * 100))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    expected = "expected a body of at most 100 bytes, as --max-body-bytes says, got 130: send fewer or smaller inputs"
    assert answer.json()["error"]["message"].startswith(expected)


def test_a_body_that_does_not_tell_its_length_is_cut_off(make_app: MakeApp) -> None:
    taken = []

    def chunks() -> Iterator[bytes]:
        for number in range(1000):
            taken.append(number)
            yield b"a" * 50

    answer = post(TestClient(make_app(max_body_bytes=100)), chunks())
    assert answer.status_code == 413
    assert "--max-body-bytes says, got more" in answer.json()["error"]["message"]


def test_a_body_of_just_the_limit_is_read(make_app: MakeApp) -> None:
    assert post(TestClient(make_app(max_body_bytes=len(GOOD))), GOOD).status_code == 200


def test_duplicate_keys_take_the_last(client: TestClient) -> None:
    assert post(client, b'{"model": "nothing", "model": "fake", "input": "a"}').status_code == 200


@pytest.mark.parametrize(
    ("content", "place", "came"),
    [
        (b"NaN", "body", "NaN"),
        (b'{"a": [1, {"b": [2, -Infinity]}, NaN]}', "a[1].b[1]", "-Infinity"),
        (b'{"body": {"body": 1e999}}', "body.body", "1e999"),
        (b'{"a": %s}' % (b"9" * 5000), "a", "9" * 79 + "…"),
        (b'[[[1]], {"x": {}}, [], NaN]', "[3]", "NaN"),
        (b'{"a]": "[,\\\\", "b": "\\"[{", "\xc3\xa9\\u00e9": [ [], {"c":[1]} ,\n-1e400 , NaN]}', "éé[2]", "-1e400"),
        (b'{"a": [{"b": 1, "c": -nan}]}', "a[0].c", "-nan"),
        (b'{"a": [inf]', "a[0]", "inf"),
    ],
)
def test_the_first_number_that_is_not_finite_is_named(
    client: TestClient, content: bytes, place: str, came: str
) -> None:
    error = post(client, content).json()["error"]
    assert (error["code"], error["param"]) == ("malformed_body", place)
    assert error["message"] == f"{place}: expected a finite number (float64, at most 1.8e308 either way), got {came}"


@pytest.mark.parametrize(
    "content",
    [b"[1 NaN]", b"1 NaN", b'{"a": 1, NaN}', b"{NaN: 1}", b'{"a" NaN}', b"[01]", b"[nano]", b"[1e9.1e999]", b"[-]"],
)
def test_what_is_no_value_at_all_is_not_taken_for_a_number(client: TestClient, content: bytes) -> None:
    error = post(client, content).json()["error"]
    assert (error["code"], error["param"]) == ("malformed_body", None)
    assert error["message"].startswith("the body is not JSON in UTF-8: ")


@pytest.mark.parametrize("text", ['\\"' * 50_000, "NaN" * 30_000, '"a",' * 50_000])
def test_nan_is_replaced_in_linear_time_and_never_in_strings(text: str) -> None:
    body = b'{"series": [[NaN, -NaN]], "user": "%b' % text.encode()
    began = time.thread_time()
    assert mark_missing(body) == body.replace(b"[NaN", b"[" + MISSING)
    assert time.thread_time() - began < 1


_VALUES = st.recursive(
    st.sampled_from([math.nan, 1.5, None, True, "NaN", '[{"\\', "]}"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "NaN", '[{\\"']), inner, max_size=3)
    ),
)


@given(_VALUES, st.sampled_from([None, 1]))
def test_nan_is_a_reading_within_three_lists_or_objects(body: Any, indent: int | None) -> None:
    replaced = mark_missing(json.dumps(body, indent=indent).encode()).replace(MISSING, b"null")
    assert json.dumps(json.loads(replaced)) == json.dumps(_without_nan(body, 0))


def _without_nan(value: Any, depth: int) -> Any:
    if isinstance(value, list):
        return [_without_nan(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {name: _without_nan(one, depth + 1) for name, one in value.items()}
    is_nan = isinstance(value, float) and math.isnan(value)
    return None if is_nan and depth >= 3 else value


def test_nothing_is_replaced_where_a_body_has_what_no_json_has() -> None:
    body = b'{"series": [[NaN, \0\0\0]]}'
    assert mark_missing(body) == body


def test_nan_is_searched_for_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[bytes] = []

    def mark(body: bytes) -> bytes:
        searched.append(body)
        return mark_missing(body)

    monkeypatch.setattr(json_body, "mark_missing", mark)
    body = b'{"model": "fake", "series": [[NaN, 1, Infinity]]}'
    answer = client.post("/v1/anomaly/score", content=body, headers={"content-type": "application/json"})
    assert answer.json()["error"]["param"] == "series[0][2]"
    assert searched == [body]


def test_it_is_named_in_bodies_of_any_size(client: TestClient) -> None:
    rows = b",".join([b"[1,2,3]"] * 90_000)
    error = post(client, b'{"model":"fake","series":[%s,[1,2,Infinity],%s]}' % (rows, rows)).json()["error"]
    assert error["param"] == "series[90000][2]"


@pytest.mark.parametrize("content", [b'{"a": [%s1]}' % (b"[]," * 5000), b'{"a": [%s NaN]}' % (b"[]," * 5000)])
def test_the_garbage_collector_waits_for_a_body(content: bytes) -> None:
    passes = list[str]()

    def watch(phase: str, info: dict[str, int]) -> None:
        passes.append(phase)

    gc.callbacks.append(watch)
    try:
        with suppress(orjson.JSONDecodeError):
            _loads(content)
    finally:
        gc.callbacks.remove(watch)
    assert not passes
    assert gc.isenabled()


def test_the_garbage_collector_stays_off_for_whom_it_was() -> None:
    gc.disable()
    try:
        _loads(b"[[]]")
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("content", [b"[" + b"[]," * 1200 + b"1]", b'{"a": [%s{}]}' % (b"{}," * 1198), b"[" * 1201])
def test_more_lists_than_any_request_has_are_not_made(make_app: MakeApp, content: bytes) -> None:
    answer = post(TestClient(make_app(max_inputs=100, max_readings=50)), content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert "lists and objects, it may have 1200: send fewer inputs" in answer.json()["error"]["message"]


def test_what_a_request_has_beside_its_inputs_is_not_too_much(make_app: MakeApp) -> None:
    body = b'{"model": "fake", "input": [[1, 2]], "labels": {"a": [], "b": []}}'
    answer = post(TestClient(make_app(max_inputs=1, max_readings=1)), body)
    assert answer.json()["error"]["param"] == "labels"


def test_a_nan_is_named_among_too_many_lists_too(make_app: MakeApp) -> None:
    answer = post(TestClient(make_app(max_inputs=100, max_readings=50)), b'{"a": [%s NaN, []]}' % (b"[]," * 1300))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "a[1300]")


def test_brackets_in_a_text_are_no_lists(make_app: MakeApp) -> None:
    texts = ['[{"a": [1]}] \\' * 100] * 100
    answer = post(
        TestClient(make_app(max_inputs=100, max_readings=50)), json.dumps({"model": "fake", "input": texts}).encode()
    )
    assert answer.status_code == 200


def test_to_look_for_it_takes_no_more_memory_than_the_body(client: TestClient) -> None:
    content = json.dumps({"k" * 50_000: [1] * 40_000 + [math.nan]}).encode()
    tracemalloc.start()
    answer = post(client, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 400
    assert peak < 20 * len(content)


@cache
def numbered(count: int, value: str = "1") -> str:
    return ",".join(f'"k{number}":{value}' for number in range(count))


# Megabytes are made where they are sent.
COSTLY: dict[str, tuple[str, Callable[[], str]]] = {
    "unknown fields": ("/v1/embeddings", lambda: '{"model":"fake","input":"a",' + numbered(300_000) + "}"),
    "few unknown fields": ("/v1/embeddings", lambda: '{"model":"fake","input":"a",' + numbered(2_000) + "}"),
    "unknown fields beside readings": (
        "/v1/anomaly/score",
        lambda: '{"model":"fake","input":"a",' + numbered(300_000) + "}",
    ),
    "token ids": ("/v1/embeddings", lambda: '{"model":"fake","input":[' + "1," * 1_000_000 + "1]}"),
    "lists of token ids": ("/v1/embeddings", lambda: '{"model":"fake","input":[[1],[' + "1," * 1_000_000 + "1]]}"),
    "tei's token ids": ("/decode", lambda: '{"ids":[' + "1," * 1_000_000 + "1]}"),
    "texts": ("/v1/embeddings", lambda: '{"model":"fake","input":[' + '"a",' * 500_000 + '"a"]}'),
    "few thousand texts": ("/v1/embeddings", lambda: '{"model":"fake","input":[' + '"a",' * 5_000 + '"a"]}'),
    "texts beside readings": ("/v1/anomaly/score", lambda: '{"model":"fake","input":[' + '"a",' * 500_000 + '"a"]}'),
    "labels": ("/v1/classify", lambda: '{"model":"fake","input":"a","labels":{' + numbered(300_000, '"a"') + "}}"),
    "examples": ("/v1/classify", lambda: '{"model":"fake","input":"a","labels":{"a":[' + '"a",' * 500_000 + '"a"]}}'),
    "documents": ("/v2/rerank", lambda: '{"model":"fake","query":"a","documents":[' + '"a",' * 500_000 + '"a"]}'),
    "pairs": ("/predict", lambda: '{"inputs":[[' + '"a",' * 500_000 + '"a"]]}'),
    "metadata": (
        "/v1/fine_tuning/jobs",
        lambda: '{"model":"fake","training_file":"f","metadata":{' + numbered(300_000) + "}}",
    ),
    "strings that end with a backslash": (
        "/v1/embeddings",
        lambda: '{"model":"fake","input":[' + r'"\\",' * 500_000 + '"a"]}',
    ),
}


@pytest.mark.parametrize("name", COSTLY)
def test_bodies_of_many_small_values_are_refused_before_each_is_checked(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, make_body = COSTLY[name]
    checked: list[int] = []
    validate = ModelField.validate

    def watch(field: ModelField, value: Any, *arguments: Any, **options: Any) -> Any:
        checked.append(values_in(value))
        return validate(field, value, *arguments, **options)

    monkeypatch.setattr(ModelField, "validate", watch)
    answer = client.post(path, content=make_body(), headers={"content-type": "application/json"})
    assert answer.status_code in {413, 422}, answer.text
    assert len(answer.text) < 500
    assert max(checked, default=0) < 1000


def values_in(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(values_in, value.values()))
    return len(value) + sum(map(values_in, value)) if isinstance(value, list) else 0


def test_an_unknown_field_among_many_is_named(client: TestClient) -> None:
    answer = post(client, ('{"model":"fake","input":"a",' + numbered(1000) + "}").encode())
    assert answer.json()["error"] == {
        "message": "k0: no such field",
        "type": "invalid_request_error",
        "param": "k0",
        "code": "unknown_field",
    }


def test_quotes_within_texts_are_no_strings(client: TestClient) -> None:
    assert (
        post(client, json.dumps({"model": "fake", "input": '"' * 100_000 + "\\" * 10_001}).encode()).status_code == 200
    )


def test_many_nans_take_little_more_memory_than_the_body() -> None:
    body = b'{"series": [[%b"NaN", -NaN]]}' % (b"NaN," * 50_000)
    tracemalloc.start()
    nulled = mark_missing(body).replace(MISSING, b"null")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert nulled == b'{"series": [[%b"NaN", -NaN]]}' % (b"null," * 50_000)
    assert peak < 10 * len(body)


@pytest.mark.slow
def test_as_many_inputs_as_allowed_pass(client: TestClient) -> None:
    texts = ["a"] * 2048
    assert client.post("/v1/embeddings", json={"model": "fake", "input": texts}).status_code == 200
    labels = {f"label {number}": ["a"] for number in range(1024)}
    answer = client.post("/v1/classify", json={"model": "fake", "input": texts, "labels": labels, "top_k": 5})
    assert answer.status_code == 200, answer.text


def test_a_body_in_tiny_parts_takes_little_more_than_its_bytes() -> None:
    left = iter(range(30_000))

    async def receive() -> Message:
        number = next(left)
        return {"type": "http.request", "body": b"%c%c" % divmod(number, 256), "more_body": number < 29_999}

    tracemalloc.start()
    try:
        body = asyncio.run(read_bytes(receive, {}, 10**6))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(body) == 60_000
    assert peak < 10**6


def test_an_image_that_is_the_body_is_not_copied() -> None:
    async def read(raw: bytes) -> bytes:
        messages = iter([{"type": "http.request", "body": raw, "more_body": False}])

        async def receive() -> Message:
            return next(messages)

        return await read_bytes(receive, {}, len(raw))

    sent = bytes(1000)
    body = asyncio.run(read(sent))
    fields = read_image_body(body, {"content-type": "image/jpeg"}, b"model=m", "images", 1)
    assert fields["images"] is sent
    assert fields["model"] == "m"
