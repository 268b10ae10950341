"""Bodies that are no bodies: each is an error of ours, in our envelope, and none costs more than it must."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import MakeApp

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


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None, "json"])
def test_other_content_types_are_refused(client: TestClient, kind: str | None) -> None:
    answer = post(client, GOOD, kind)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"])
def test_json_by_any_of_its_names_is_read(client: TestClient, kind: str) -> None:
    assert post(client, GOOD, kind).status_code == 200


def test_a_body_too_large_by_its_own_account_is_not_read(make_app: MakeApp) -> None:
    client = TestClient(make_app(max_body_bytes=100))
    answer = post(client, b'{"model": "fake", "input": "%s"}' % (b"a" * 100))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert "100 bytes" in answer.json()["error"]["message"]


def test_a_body_that_does_not_tell_its_length_is_cut_off(make_app: MakeApp) -> None:
    taken = []

    def chunks() -> Iterator[bytes]:
        for number in range(1000):
            taken.append(number)
            yield b"a" * 50

    answer = post(TestClient(make_app(max_body_bytes=100)), chunks())
    assert answer.status_code == 413


def test_a_body_of_just_the_limit_is_read(make_app: MakeApp) -> None:
    assert post(TestClient(make_app(max_body_bytes=len(GOOD))), GOOD).status_code == 200


def test_duplicate_keys_take_the_last(client: TestClient) -> None:
    assert post(client, b'{"model": "nothing", "model": "fake", "input": "a"}').status_code == 200


@pytest.mark.parametrize(
    ("content", "place", "came"),
    [
        (b"NaN", "body", "nan"),
        (b'{"a": [1, {"b": [2, -Infinity]}, NaN]}', "a[1].b[1]", "-inf"),
        (b'{"body": {"body": 1e999}}', "body.body", "inf"),
        (b'{"a": %s}' % (b"9" * 5000), "a", "inf"),
        (b'[[[1]], {"x": {}}, [], NaN]', "[3]", "nan"),
    ],
)
def test_the_first_number_that_is_not_finite_is_named(client: TestClient, content: bytes, place: str, came: str) -> None:
    error = post(client, content).json()["error"]
    assert (error["code"], error["param"]) == ("malformed_body", place)
    assert error["message"].endswith(f"{place}: expected a finite number, at most 1.8e308, got {came}")


def test_to_look_for_it_takes_no_more_memory_than_the_body(client: TestClient) -> None:
    content = json.dumps({"k" * 50_000: [1] * 40_000 + [math.nan]}).encode()
    tracemalloc.start()
    answer = post(client, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 400
    assert peak < 20 * len(content)
