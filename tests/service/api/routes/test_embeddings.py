"""OpenAI's embeddings: shapes, formats, counts, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from models.linalg import Quantization, quantize
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp


def embed(client: TestClient, **body: object) -> Any:
    answer = client.post("/v1/embeddings", json={"model": "fake", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def vectors(answer: Any) -> NDArray[np.float32]:
    return np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)


def test_the_answer_is_openais_with_truncated_added(client: TestClient) -> None:
    answer = embed(client, input=["hello world", "w1 " * 40])
    assert {key: answer[key] for key in ("object", "model", "usage")} == {
        "object": "list",
        "model": "fake",
        "usage": {"prompt_tokens": 4 + 32, "total_tokens": 36},
    }
    assert [(item["object"], item["index"], item["truncated"]) for item in answer["data"]] == [
        ("embedding", 0, False),
        ("embedding", 1, True),
    ]


@pytest.mark.parametrize(
    "given", ["hello world", ["hello world"], "ids", ["ids"]], ids=["text", "texts", "ids", "lists of ids"]
)
def test_every_form_of_input_gives_the_same_vector(make_app: MakeApp, given: Any) -> None:
    client = TestClient(make_app(token_ids="model"))
    ids = client.post(
        "/v1/tokenize", json={"model": "fake", "input": "hello world", "add_special_tokens": False}
    ).json()["data"][0]["ids"]
    sent = ids if given == "ids" else [ids] if given == ["ids"] else given
    np.testing.assert_array_equal(vectors(embed(client, input=sent)), vectors(embed(client, input="hello world")))


def test_base64_is_little_endian_float32(client: TestClient) -> None:
    [item] = embed(client, input="hello", encoding_format="base64")["data"]
    read = np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(read, vectors(embed(client, input="hello"))[0])


@pytest.mark.parametrize("kind", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("name", ["quantization", "output_dtype", "embedding_type"])
def test_vectors_of_integers_come_as_numbers_and_as_base64(client: TestClient, kind: Quantization, name: str) -> None:
    floats = vectors(embed(client, input=["hello", "my card"]))
    expected, loss = quantize(floats, kind)
    answer = embed(client, input=["hello", "my card"], **{name: kind})
    assert [item["embedding"] for item in answer["data"]] == expected.tolist()
    assert answer["quantization"] == {"dtype": kind, "loss": pytest.approx(loss, abs=1e-6)}
    packed = embed(client, input=["hello", "my card"], encoding_format="base64", **{name: kind})
    assert [base64.b64decode(item["embedding"]) for item in packed["data"]] == [row.tobytes() for row in expected]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"normalized": False}, {"normalize": False}),
        ({"output_dimension": 5}, {"dimensions": 5}),
        ({"embedding_type": "base64"}, {"encoding_format": "base64"}),
        ({"embedding_type": "float", "output_dtype": "float"}, {}),
        ({"task": "text-matching", "late_chunking": False}, {}),
        ({"input_type": "document"}, {}),
    ],
)
def test_jinas_and_voyages_names_say_the_same_as_ours(
    client: TestClient, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    assert embed(client, input="hello", **theirs) == embed(client, input="hello", **ours)


def test_purposes_choose_among_the_models_prompts(make_app: MakeApp) -> None:
    prompts = {"query": "w1 ", "passage": "w2 ", "classification": "w3 "}
    client = TestClient(make_app(FakeModel("fake", prompts=prompts)))
    for body, prompt in (
        ({"task": "retrieval.query"}, "w1 "),
        ({"task": "retrieval.passage"}, "w2 "),
        ({"input_type": "query"}, "w1 "),
        ({"input_type": "document"}, "w2 "),
        ({"task": "classification"}, "w3 "),
        ({"task": "text-matching"}, ""),
        ({"task": "retrieval.query", "prompt_name": "classification"}, "w3 "),
    ):
        assert embed(client, input="hello", **body)["data"] == embed(client, input=f"{prompt}hello")["data"], body


def test_without_a_model_the_first_encoder_answers(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", json={"input": "hello"}).json()
    assert answer == embed(client, input="hello")


def test_fewer_dimensions_are_the_first_ones_scaled_to_length_1(client: TestClient) -> None:
    whole, short = (
        vectors(embed(client, input="hello world"))[0],
        vectors(embed(client, input="hello world", dimensions=5))[0],
    )
    np.testing.assert_allclose(short, whole[:5] / np.linalg.norm(whole[:5]), atol=1e-6)


def test_vectors_may_stay_as_long_as_they_are(client: TestClient) -> None:
    raw = vectors(embed(client, input="hello", dimensions=3, normalize=False))[0]
    np.testing.assert_allclose(raw, vectors(embed(client, input="hello"))[0][:3], atol=1e-6)


def test_a_large_answer_is_the_same_as_many_small_ones(client: TestClient) -> None:
    texts = [f"w{number}" for number in range(1100)]
    large = vectors(embed(client, input=texts))
    assert large.size > 16_384, "written in another thread"
    for index in (0, 555, 1099):
        np.testing.assert_array_equal(large[index], vectors(embed(client, input=texts[index]))[0])


def test_a_prompt_goes_before_each_text(make_app: MakeApp) -> None:
    client = TestClient(make_app(FakeModel("fake", prompts={"query": "w1 "})))
    np.testing.assert_array_equal(
        vectors(embed(client, input="hello", prompt_name="query")), vectors(embed(client, input="w1 hello"))
    )


@pytest.mark.parametrize("name", ["query", "document"])
def test_a_prompt_of_the_usual_name_is_known_to_every_model(client: TestClient, name: str) -> None:
    np.testing.assert_array_equal(
        vectors(embed(client, input="hello", prompt_name=name)), vectors(embed(client, input="hello"))
    )


def test_headers_say_what_happened(client: TestClient) -> None:
    answer = client.post(
        "/v1/embeddings", json={"model": "fake", "input": ["hello", "w1 " * 40]}, headers={"X-Request-ID": "abc-1"}
    )
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers["x-sonde-model"] == "fake:0"
    assert answer.headers["x-sonde-truncated"] == "1"
    assert [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")] == [
        "tokenize",
        "queue",
        "inference",
    ]


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["a", ""]}, "input[1]", "invalid_value"),
        ({"input": ["a", None]}, "input[1]", "invalid_value"),
        ({"input": "a\0b"}, "input", "invalid_value"),
        ({"input": {"text": "a"}}, "input", "invalid_value"),
        ({"input": ["a", 5]}, "input[1]", "invalid_value"),
        ({"input": [[1], "a"]}, "input[1]", "invalid_value"),
        ({"input": [[4, 99_999]]}, "input[0]", "invalid_tokens"),
        ({"input": [4, -1]}, "input[1]", "invalid_value"),
        ({"input": [4, True]}, "input[1]", "invalid_value"),
        ({"input": ["ok", "w1 " * 40], "truncate": False}, "input[1]", "input_too_long"),
        ({"input": "w1 " * 40, "truncate": False}, "input", "input_too_long"),
        ({"input": "w1 " * 4000, "truncate": False}, "input", "input_too_long"),
        ({"input": [4] * 40, "truncate": False}, "input", "input_too_long"),
        ({"input": [4, 99_999]}, "input", "invalid_tokens"),
        ({"input": ["a"] * 6}, "input", "invalid_value"),
        ({"dimensions": 17}, "dimensions", "invalid_value"),
        ({"dimensions": 0}, "dimensions", "invalid_value"),
        ({"encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"prompt_name": "title"}, "prompt_name", "invalid_value"),
        ({"modle": "fake"}, "modle", "unknown_field"),
        ({"input": ["a", {"text": ""}]}, "input[1]", "invalid_value"),
        ({"input": [{"text": "a", "image": "b"}]}, "input[0]", "invalid_value"),
        ({"late_chunking": True}, "late_chunking", "invalid_value"),
        ({"quantization": "int4"}, "quantization", "invalid_value"),
        ({"dimensions": 4, "output_dimension": 5}, "output_dimension", "invalid_value"),
        ({"truncate": True, "truncation": False}, "truncation", "invalid_value"),
        ({"input": ["ok", "w1 " * 40], "truncation": False}, "input[1]", "input_too_long"),
        ({"normalize": "yes"}, "normalize", "invalid_value"),
        ({"model": 7}, "model", "invalid_value"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(
    make_app: MakeApp, change: dict[str, Any], param: str, code: str
) -> None:
    client = TestClient(make_app(max_inputs=5, token_ids="model"))
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": "hello", **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (422, param, code)
    assert error["type"] == "invalid_request_error"


def test_a_missing_field_is_named(client: TestClient) -> None:
    error = client.post("/v1/embeddings", json={"model": "fake"}).json()["error"]
    assert (error["param"], error["code"]) == ("input", "missing_field")


def test_too_many_tokens_are_refused(make_app: MakeApp) -> None:
    client = TestClient(make_app(max_request_tokens=20))
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": ["hello world"] * 6})
    assert answer.status_code == 422
    assert "24 tokens, 20 are allowed" in answer.json()["error"]["message"]
