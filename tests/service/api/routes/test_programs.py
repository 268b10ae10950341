"""Exported programs that do a task: classes, vectors and anomaly scores of tensors, rows and images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from models.images.data_uri import to_data_uri
from service.api.new_job import plan_job
from service.api.schemas.jobs import JobBody
from service.config import Settings
from service.errors import WrongTask
from service.serving.model_manager import ModelManager
from tests.support.app import served
from tests.support.described_programs import LABELS, MODELS, described
from tests.support.programs import host, open_program


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("programs")
    models = [described(folder, name) for name in MODELS]
    settings = Settings.read(
        {"home": folder / "home", "host": "testserver", "model": models, "max_request_tokens": 900}
    )
    with served(settings) as (client, _):
        yield client


def _x(rows: int = 2) -> np.ndarray[Any, Any]:
    return np.random.default_rng(rows).standard_normal((rows, 16)).astype(np.float32)


def _logits(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return open_program("mlp").run({"x": host(x)})["output"].values


def _softmax(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers: np.ndarray[Any, Any] = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)  # type: ignore[no-any-return]  # NumPy's sum


def _tensor(name: str, datatype: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": values.tolist()}


def _colour(*colour: int) -> str:
    return to_data_uri(Image.new("RGB", (40, 30), colour), 40, "PNG")


def _scores(answer: Any) -> list[dict[str, float]]:
    return [{one["label"]: one["score"] for one in item["labels"]} for item in answer.json()["data"]]


def test_a_classifier_reads_rows_and_tensors(client: TestClient) -> None:
    x = _x(3)
    expected = _softmax(_logits(x))
    for fields in ({"rows": x.tolist()}, {"inputs": [_tensor("x", "FP32", x)]}):
        answer = client.post("/v1/classify", json={"model": "classes", **fields})
        assert answer.status_code == 200, answer.text
        for item, found, row in zip(answer.json()["data"], _scores(answer), expected, strict=True):
            assert item["label"] == LABELS[row.argmax()]
            assert [found[label] for label in LABELS] == pytest.approx(row.tolist(), abs=1e-5)
    best = client.post("/v1/classify", json={"model": "classes", "rows": x.tolist(), "top_k": 1}).json()["data"]
    assert [len(item["labels"]) for item in best] == [1, 1, 1]


def test_each_label_by_itself_takes_a_sigmoid(client: TestClient) -> None:
    x = _x(1)
    answer = client.post("/v1/classify", json={"model": "classes", "rows": x.tolist(), "multi_label": True})
    [row] = 1 / (1 + np.exp(-_logits(x)))
    assert [_scores(answer)[0][label] for label in LABELS] == pytest.approx(row.tolist(), abs=1e-5)


def test_stated_probabilities_that_are_none_are_an_error_of_the_model(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.post("/v1/classify", json={"model": "stated", "rows": (100 * _x()).tolist()})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "expected probabilities, got values from" in caplog.text


def test_the_protocol_ranks_by_the_labels(client: TestClient) -> None:
    x = _x(1)
    wanted = [{"name": "output", "parameters": {"classification": 1}}]
    body = {"inputs": [_tensor("x", "FP32", x)], "outputs": wanted}
    [best] = client.post("/v2/models/classes/infer", json=body).json()["outputs"][0]["data"]
    at = int(_logits(x)[0].argmax())
    assert best.split(":")[1:] == [str(at), LABELS[at]]


def test_vectors_are_those_of_the_output_that_is_named(client: TestClient) -> None:
    ids = np.arange(14).reshape(2, 7)
    body = {"model": "vectors", "inputs": [_tensor("ids", "INT64", ids)], "normalize": False}
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    expected = open_program("words").run({"ids": host(ids, "int64")})["output_1"].values
    got = [item["embedding"] for item in answer.json()["data"]]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    [short] = client.post(
        "/v1/embeddings", json={**body, "inputs": [_tensor("ids", "INT64", ids[:1])], "dimensions": 2}
    ).json()["data"]
    assert len(short["embedding"]) == 2
    assert client.get("/v1/models/vectors").json()["dimensions"] == 5


def test_scores_get_p_values_by_the_calibration(client: TestClient) -> None:
    rows = np.zeros((2, 16))
    rows[1, 0] = 100
    answer = client.post("/v1/anomaly/score", json={"model": "strange", "rows": rows.tolist()})
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert [item["score"] for item in content["data"]] == [0.0, 100.0]
    assert [item["p_value"] for item in content["data"]] == [1.0, 1 / 40]
    assert [item["is_anomaly"] for item in content["data"]] == [False, True]
    assert content["threshold"] == 37.0
    assert content["warnings"] == []


def test_images_become_the_input_as_it_is_described(client: TestClient) -> None:
    images = [_colour(255, 0, 0), _colour(0, 0, 255)]
    answer = client.post("/v1/classify", json={"model": "pictures", "images": images})
    assert answer.status_code == 200, answer.text
    assert [item["label"] for item in answer.json()["data"]] == ["red", "blue"]
    logits = [[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]]
    for found, row in zip(_scores(answer), _softmax(np.array(logits)), strict=True):
        assert [found[label] for label in ("red", "green", "blue")] == pytest.approx(row.tolist(), abs=1e-5)
    tensor = np.full((1, 3, 8, 8), -1.0)
    tensor[0, 1] = 1
    by_tensor = client.post("/v1/classify", json={"model": "pictures", "inputs": [_tensor("x", "FP32", tensor)]})
    assert by_tensor.json()["data"][0]["label"] == "green"
    shown = client.post("/v1/preprocess", json={"model": "pictures", "images": images[:1]}).json()["data"][0]
    assert (shown["shape"], shown["minimum"], shown["maximum"]) == ([1, 3, 8, 8], -1.0, 1.0)


def test_images_get_anomaly_scores(client: TestClient) -> None:
    body = {"model": "defects", "images": [_colour(0, 0, 0), _colour(255, 255, 255)]}
    answer = client.post("/v1/anomaly/score", json=body)
    assert answer.status_code == 200, answer.text
    assert [item["score"] for item in answer.json()["data"]] == pytest.approx([0.0, 1.0])


ROW = [0.0] * 16
BLACK = _colour(0, 0, 0)
DOUBLES = {"name": "x", "datatype": "FP64", "shape": [1, 16], "data": ROW}
SHORT = {**DOUBLES, "datatype": "FP32", "data": ROW[1:]}
DEEP = {**SHORT, "data": json.loads("[" * 300 + "]" * 300)}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("classify", {"model": "classes", "rows": [[0.0] * 15]}, "x: expected float32 [batch, 16], got [1, 15]"),
        ("classify", {"model": "classes", "rows": [ROW] * 65}, "x: expected float32 [batch, 16], got [65, 16]"),
        ("classify", {"model": "classes", "rows": [ROW, [0.0]]}, "rows[1]: expected 16 numbers as rows[0] has, got 1"),
        ("classify", {"model": "classes", "rows": [[0.0, "1"]]}, "rows[0][1]: expected `float`, got `str`"),
        (
            "classify",
            {"model": "classes", "rows": [[1e300] + [0.0] * 15]},
            "rows: expected numbers that float32 can hold",
        ),
        ("classify", {"model": "classes", "rows": []}, "rows: expected at least one row of numbers"),
        ("classify", {"model": "classes", "rows": [ROW], "labels": ["a"]}, "leave labels out"),
        (
            "classify",
            {"model": "stated", "rows": [ROW], "multi_label": True},
            "multi_label: stated computes probabilities",
        ),
        (
            "classify",
            {"model": "classes", "rows": [ROW], "truncate": True},
            "truncate: is for texts, and classes reads",
        ),
        ("classify", {"model": "pictures", "images": [BLACK], "truncate": False}, "pictures reads tensors and images"),
        ("embeddings", {"model": "vectors", "rows": [ROW], "prompt_name": "query"}, "prompt_name: is for texts"),
        ("embeddings", {"model": "vectors", "rows": [ROW], "truncation": True}, "truncate: is for texts"),
        ("anomaly/score", {"model": "strange", "rows": [ROW] * 2, "truncate": True}, "truncate: is for texts"),
        ("anomaly/score", {"model": "defects", "images": [BLACK], "truncate": True}, "truncate: is for texts"),
        ("classify", {"model": "classes", "input": "red"}, "classes reads tensors, not texts"),
        ("classify", {"model": "classes", "images": [BLACK]}, "classes does classification with tensors"),
        ("classify", {"model": "plain", "rows": [ROW]}, "plain does inference with tensors; programs that do"),
        ("classify", {"model": "classes", "inputs": [DOUBLES]}, "x: expected float32 [batch, 16], got dtype float64"),
        ("classify", {"model": "classes", "inputs": [SHORT]}, "x: expected 16 values for shape [1, 16], got 15"),
        (
            "classify",
            {"model": "classes", "inputs": [{"name": "x", "shape": [1]}]},
            "inputs[0]: object missing required field",
        ),
        ("classify", {"model": "classes", "inputs": []}, "inputs: expected a list of at least one tensor"),
        ("classify", {"model": "classes", "inputs": ["red"]}, "inputs[0]: expected a tensor with name, datatype,"),
        ("classify", {"model": "classes", "inputs": [DEEP]}, "inputs: expected data in lists as deep as its shape"),
        ("classify", {"model": "pictures", "images": [BLACK] * 65}, "x: expected float32 [batch, 3, 8, 8], got [65"),
        ("classify", {"model": "pictures", "images": ["aGVsbG8="]}, "images[0]"),
        (
            "embeddings",
            {"model": "vectors", "rows": [[1.0]]},
            "rows: are for programs with one float input [batch, columns]",
        ),
        ("embeddings", {"model": "classes", "rows": [ROW]}, "classes does classification with tensors"),
        ("embeddings", {"model": "vectors", "rows": [[1.0]], "input": "a"}, "give exactly one of"),
        ("anomaly/score", {"model": "strange", "input": "a"}, "strange reads tensors: send inputs, or rows"),
        ("anomaly/score", {"model": "strange", "rows": [ROW] * 2, "reference": ["a", "b"]}, "leave reference out"),
        ("anomaly/score", {"model": "strange", "images": [BLACK]}, "strange reads tensors: send inputs, or rows"),
    ],
)
def test_what_does_not_fit_is_named(client: TestClient, path: str, body: dict[str, Any], message: str) -> None:
    answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code in (415, 422), answer.text
    assert message in answer.json()["error"]["message"]


def test_a_file_in_a_form_is_no_tensor(client: TestClient) -> None:
    answer = client.post("/v1/classify", data={"model": "classes"}, files={"inputs": ("x.png", b"x", "image/png")})
    assert answer.status_code == 422, answer.text
    assert "inputs[0]: expected a tensor with name, datatype, shape and data, got" in answer.json()["error"]["message"]


def test_a_program_is_no_base_of_a_job(client: TestClient) -> None:
    manager: ModelManager = client.app.state.manager  # type: ignore[attr-defined]  # it is a FastAPI
    body = JobBody(model="classes", training_file="file-1")
    with pytest.raises(WrongTask, match="classes is an exported program, which is not trained"):
        plan_job(body, manager.find("classes"), None, manager._settings)  # type: ignore[arg-type]  # it reads no store
