"""A request goes through everything, with a fake model."""

from __future__ import annotations

from fastapi.testclient import TestClient


def test_embeddings_come_out_normalised(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": ["hello world", "my card"]})
    assert answer.status_code == 200
    vectors = [item["embedding"] for item in answer.json()["data"]]
    assert [round(sum(x * x for x in vector), 4) for vector in vectors] == [1.0, 1.0]
