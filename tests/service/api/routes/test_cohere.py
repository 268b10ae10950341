"""Cohere's embeddings: kinds of vectors, cutting, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from models.linalg import quantize
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp

KINDS = ["float", "int8", "uint8", "binary", "ubinary", "base64"]


def embed(client: TestClient, path: str = "/v2/embed", **body: object) -> Any:
    answer = client.post(path, json={"model": "fake", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed"])
def test_every_kind_holds_the_same_vectors(client: TestClient, path: str) -> None:
    answer = embed(client, path, texts=["hello", "my card"], embedding_types=KINDS)
    assert (answer["response_type"], answer["texts"]) == ("embeddings_by_type", ["hello", "my card"])
    assert answer["meta"]["billed_units"]["input_tokens"] == 3 + 4
    found = answer["embeddings"]
    floats = np.array(found["float"], dtype=np.float32)
    for kind in ("int8", "uint8", "binary", "ubinary"):
        np.testing.assert_array_equal(found[kind], quantize(floats, kind)[0])
    decoded = [np.frombuffer(base64.b64decode(text), dtype="<f4") for text in found["base64"]]
    np.testing.assert_allclose(decoded, floats, atol=1e-7)


def test_v1_answers_with_a_list_unless_kinds_are_named(client: TestClient) -> None:
    answer = embed(client, "/v1/embed", texts=["hello"])
    assert answer["response_type"] == "embeddings_floats"
    assert answer["embeddings"] == embed(client, texts=["hello"])["embeddings"]["float"]


def test_texts_are_cut_on_the_side_that_is_named(make_app: MakeApp) -> None:
    client = TestClient(make_app(FakeModel()))
    words = [f"w{number}" for number in range(40)]

    def vector(**body: Any) -> Any:
        return embed(client, **body)["embeddings"]["float"][0]

    assert vector(texts=[" ".join(words)], truncate="START") == vector(texts=[" ".join(words[-30:])])
    assert vector(texts=[" ".join(words)], truncate="END") == vector(texts=[" ".join(words[:30])])
    assert vector(texts=[" ".join(words)], max_tokens=5) == vector(texts=[" ".join(words[:5])])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"texts": ["a", "w1 " * 40], "truncate": "NONE"}, "texts[1]"),
        ({"texts": []}, "texts"),
        ({"texts": None}, "texts"),
        ({"inputs": [{"content": [{"type": "text", "text": "a"}]}]}, "inputs"),
        (
            {"texts": None, "inputs": [{"content": [{"type": "image_url", "image_url": {}}]}]},
            "inputs[0].content[0].image_url.url",
        ),
        ({"texts": None, "inputs": [{"content": []}]}, "inputs[0]"),
        ({"images": ["data:"]}, "images[0]"),
        ({"input_type": "picture"}, "input_type"),
        ({"embedding_types": ["int4"]}, "embedding_types[0]"),
        ({"embedding_types": []}, "embedding_types"),
        ({"output_dimension": 17}, "output_dimension"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(client: TestClient, change: dict[str, Any], param: str) -> None:
    answer = client.post("/v2/embed", json={"model": "fake", "texts": ["a"], **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text
