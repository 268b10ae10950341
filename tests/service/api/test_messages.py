"""What reaches people: our own words, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

WRONG: list[tuple[str, str, Any]] = [
    ("POST", "/v1/embeddings", {"model": "fake", "input": "a", "temperature": 1}),
    ("POST", "/v1/embeddings", {"model": "fake"}),
    ("POST", "/v1/embeddings", {"model": 5, "input": "a"}),
    ("POST", "/v1/embeddings", {"model": "fake", "input": "a", "dimensions": 0}),
    ("POST", "/v1/embeddings", {"model": "fake", "input": "a", "encoding_format": "hex"}),
    ("POST", "/v1/embeddings", {"model": "", "input": "a"}),
    ("POST", "/v1/embeddings", []),
    ("POST", "/v1/classify", {"model": "fake", "input": "a", "multi_label": "yes"}),
    ("POST", "/v1/anomaly/score", {"model": "fake", "input": "a", "alpha": 2}),
    ("POST", "/v1/fine_tuning/jobs", {"model": "fake", "training_file": "file-1", "suffix": "a b"}),
    ("POST", "/v1/fine_tuning/jobs", {"model": "fake", "training_file": "file-1", "seed": -1}),
    ("POST", "/v1/fine_tuning/jobs", {"model": "fake", "training_file": "f", "hyperparameters": {"mode": "all"}}),
    ("GET", "/v1/files?limit=x", None),
    ("GET", "/v1/files?order=up", None),
    ("PUT", "/v1/aliases/a%20b", {"target": "x"}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRONG)
def test_errors_are_in_our_own_words(client: TestClient, method: str, path: str, body: Any) -> None:
    answer = client.request(method, path, **({} if body is None else {"json": body}))
    assert answer.status_code == 422, answer.text
    message = answer.json()["error"]["message"]
    assert not {"Input should", "should have", "should match", "permitted", "Field required", "Value error"} & {
        words
        for words in ("Input should", "should have", "should match", "permitted", "Field required", "Value error")
        if words in message
    }, message


@pytest.mark.parametrize("path", ["/v1/embeddings/", "/embed/", "/v1/rerank/?a=b", "/health/"])
def test_a_slash_too_many_says_where_to_go(client: TestClient, path: str) -> None:
    method = "GET" if path.startswith("/health") else "POST"
    answer = client.request(method, path, json={}, follow_redirects=False)
    right, _, query = path.partition("?")
    right = right.removesuffix("/")
    assert (answer.status_code, answer.headers["location"]) == (307, right + (query and f"?{query}"))
    assert f"there is {right}: correct the client's base URL" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/uploads", "/v1/uploads/upload_1/parts"])
def test_uploads_in_parts_are_refused_with_the_route_to_take(client: TestClient, path: str) -> None:
    answer = client.post(path, json={"bytes": 5})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")
    assert "POST /v1/files" in answer.json()["error"]["message"]
