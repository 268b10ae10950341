"""The Open Inference Protocol over HTTP: metadata, tensors in JSON and as raw values, and what is refused."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.api.tensors.data import stated_length
from service.config import Settings
from tests.support.app import served
from tests.support.programs import host, open_program, program_path

HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    names = ("mlp", "convolution", "words", "half", "branches")
    models = [str(program_path(name)) for name in names]
    settings = Settings.read({"home": tmp_path_factory.mktemp("home"), "host": "testserver", "model": models})
    with served(settings) as (client, _):
        yield client


def _x(rows: int = 2) -> np.ndarray[Any, Any]:
    return np.random.default_rng(rows).standard_normal((rows, 16)).astype(np.float32)


def _input(values: np.ndarray[Any, Any], **changes: object) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": list(values.shape), "data": values.ravel().tolist()} | changes


def _binary(header: dict[str, Any], *parts: bytes) -> dict[str, Any]:
    """The body and the headers of a request with raw values."""
    content = json.dumps(header).encode()
    return {"content": content + b"".join(parts), "headers": {HEADER: str(len(content))}}


def _infer(client: TestClient, *inputs: dict[str, Any], model: str = "mlp", **fields: object) -> Any:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **fields})


def _expected(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return open_program("mlp").run({"x": host(x)})["output"].values


def test_the_server_and_its_models_describe_themselves(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "sonde"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/mlp/ready"):
        assert client.get(path).status_code == 200
    metadata = client.get("/v2/models/convolution").json()
    version = client.get("/v1/models/convolution").json()["version"]
    assert metadata == {
        "name": "convolution",
        "versions": [version],
        "platform": "pytorch_exported_program",
        "inputs": [
            {"name": "image", "datatype": "FP32", "shape": [-1, 3, -1, -1]},
            {"name": "gain", "datatype": "FP32", "shape": [-1]},
        ],
        "outputs": [
            {"name": "features", "datatype": "FP32", "shape": [-1, 4, -1, -1]},
            {"name": "means", "datatype": "FP32", "shape": [-1, 4]},
        ],
    }
    assert client.get(f"/v2/models/convolution/versions/{version}").json() == metadata
    assert client.get(f"/v2/models/convolution/versions/{version}/ready").status_code == 200
    x = _x()
    assert client.post("/v2/models/mlp/versions/7/infer", json={"inputs": [_input(x)]}).status_code == 404
    assert client.get("/v2/models/convolution/versions/7/ready").status_code == 404


def test_the_model_object_has_the_contract(client: TestClient) -> None:
    model = client.get("/v1/models/mlp").json()
    assert model["task"] == "inference"
    assert model["signature"] == open_program("mlp").contract.signature()
    assert model["batches"].startswith("rows of several requests share a batch")


@pytest.mark.parametrize("nested", [False, True])
def test_tensors_in_json_are_computed(client: TestClient, nested: bool) -> None:
    x = _x()
    answer = _infer(client, _input(x, data=x.tolist() if nested else x.ravel().tolist()), id="seven")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["id"], body["model_name"]) == ("seven", "mlp")
    [output] = body["outputs"]
    assert {key: output[key] for key in ("name", "datatype", "shape")} == {
        "name": "output",
        "datatype": "FP32",
        "shape": [2, 4],
    }
    np.testing.assert_allclose(np.reshape(output["data"], (2, 4)), _expected(x), rtol=1e-5, atol=1e-6)
    assert answer.headers["x-sonde-model"] == f"mlp:{body['model_version']}"


def test_raw_values_are_computed_and_answered(client: TestClient) -> None:
    x = _x(3)
    one = _input(x, parameters={"binary_data_size": x.nbytes})
    del one["data"]
    header = {"inputs": [one], "parameters": {"binary_data_output": True}}
    answer = client.post("/v2/models/mlp/infer", **_binary(header, x.tobytes()))
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[HEADER])
    [output] = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 3 * 4 * 4}
    got = np.frombuffer(answer.content[length:], np.float32).reshape(output["shape"])
    np.testing.assert_allclose(got, _expected(x), rtol=1e-5, atol=1e-6)


def test_packed_bodies_and_chosen_outputs(client: TestClient) -> None:
    ids = {"name": "ids", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]}
    body = {"inputs": [ids], "outputs": [{"name": "output_1"}]}
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    answer = client.post("/v2/models/words/infer", content=gzip.compress(json.dumps(body).encode()), headers=headers)
    assert [output["name"] for output in answer.json()["outputs"]] == ["output_1"]


def test_bfloat16_travels_as_raw_values_alone(client: TestClient) -> None:
    one = {"name": "x", "datatype": "BF16", "shape": [1, 4], "parameters": {"binary_data_size": 8}}
    ones = np.full(4, 0x3F80, np.uint16).tobytes()
    answer = client.post("/v2/models/half/infer", **_binary({"inputs": [one]}, ones))
    assert answer.json() == {"error": "output: BF16 has no form in JSON: ask for binary_data"}
    header = {"inputs": [one], "outputs": [{"name": "output", "parameters": {"binary_data": True}}]}
    answer = client.post("/v2/models/half/infer", **_binary(header, ones))
    assert answer.status_code == 200
    assert len(answer.content) - int(answer.headers[HEADER]) == 4


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"shape": [2, 15]}, 422, "x: expected float32 [batch, 16], got [2, 15]: dimension 1 is 15, expected 16"),
        ({"shape": [65, 16]}, 422, "dimension 0 is 65, expected 1..64"),
        ({"shape": []}, 422, "x: expected float32 [batch, 16], got []"),
        ({"shape": [-2, 16]}, 422, "inputs[0].shape[0]: expected `int` >= 0, got -2"),
        ({"shape": [2, 16.5]}, 422, "expected `int`, got `float`"),
        ({"datatype": "FP64"}, 422, "x: expected float32 [batch, 16], got dtype float64"),
        ({"datatype": "FP99"}, 422, "x: expected a datatype of BOOL,"),
        ({"datatype": "BYTES"}, 422, "x: expected float32 [batch, 16], got dtype bytes"),
        ({"name": "y"}, 422, "inputs: no input 'y'; the model has: x"),
        ({"data": [1.0] * 31}, 422, "x: expected 32 values for shape [2, 16], got 31"),
        ({"data": [1.0] * 33}, 422, "x: expected 32 values for shape [2, 16], got 33"),
        ({"data": [1.0] * 31 + ["1"]}, 422, "x: expected FP32 in lists, got other data (Expected `float`, got `str`)"),
        ({"data": [1.0] * 31 + [None]}, 422, "got other data (Expected `float`, got `null`)"),
        ({"data": [1.0] * 31 + [True]}, 422, "got other data (Expected `float`, got `bool`)"),
        ({"data": 1.0}, 422, "got other data (Expected `array`, got `float`)"),
        ({"data": {"a": 1}}, 422, "got other data (Expected `array`, got `object`)"),
        ({"data": [1.0] * 31 + [1e39]}, 422, "x: expected finite numbers, got NaN or infinity"),
        ({"extra": 1}, 422, "unknown field `extra`: leave it out"),
        ({"parameters": {"shared_memory_region": "a"}}, 422, "unknown field `shared_memory_region`"),
        ({"parameters": {"binary_data_size": -1}}, 422, "binary_data_size: expected `int` >= 0, got -1"),
        ({"parameters": {"binary_data_size": 1 << 41}}, 422, f"expected `int` <= {1 << 40}, got {1 << 41}"),
        ({"parameters": {"binary_data_size": 10**30}}, 422, f"expected `int` <= {1 << 40}, got {10**30}"),
        ({"shape": [1] * 65}, 422, "inputs[0].shape: expected `array` of length <= 64, got 65 items"),
        ({"name": "x" * 257}, 422, "inputs[0].name: expected `str` of length <= 256, got 257 characters"),
        ({"name": ""}, 422, "inputs[0].name: expected `str` of length >= 1, got 0 characters"),
        ({"parameters": {"binary_data_size": 4}}, 422, "x: has both data and binary_data_size"),
    ],
)
def test_a_tensor_that_is_not_as_it_says_is_refused(
    client: TestClient, changes: dict[str, Any], status: int, message: str
) -> None:
    answer = _infer(client, _input(_x(), **changes))
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("size", "bytes_", "length", "message"),
    [
        (127, 127, 0, "x: expected 128 bytes for FP32 [2, 16], got binary_data_size 127 and 127 bytes"),
        (128, 127, 0, "x: expected 128 bytes for FP32 [2, 16], got binary_data_size 128 and 127 bytes"),
        (128, 129, 0, "inputs: expected 128 bytes after the JSON, as binary_data_size says, got 129"),
        (128, 128, 1000, "inference-header-content-length: expected the length of the JSON, at most"),
        (128, 128, -1000, "inference-header-content-length: expected the length of the JSON, at most"),
        (128, 128, -1, "the body is not JSON in UTF-8"),
        (128, 128, 1, "the body is not JSON in UTF-8"),
    ],
)
def test_sizes_that_do_not_add_up_are_refused(
    client: TestClient, size: int, bytes_: int, length: int, message: str
) -> None:
    one = {"name": "x", "datatype": "FP32", "shape": [2, 16], "parameters": {"binary_data_size": size}}
    request = _binary({"inputs": [one]}, b"\0" * bytes_)
    request["headers"][HEADER] = str(int(request["headers"][HEADER]) + length)
    answer = client.post("/v2/models/mlp/infer", **request)
    assert answer.status_code in (400, 422), answer.text
    assert message in answer.json()["error"]


def test_raw_values_that_are_not_finite_are_refused(client: TestClient) -> None:
    one = {"name": "x", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
    answer = client.post(
        "/v2/models/mlp/infer", **_binary({"inputs": [one]}, np.full(16, np.nan, np.float32).tobytes())
    )
    assert answer.json() == {"error": "x: expected finite numbers, got NaN or infinity"}


def test_a_huge_shape_is_refused_before_its_values_are_read(client: TestClient) -> None:
    one = {"name": "x", "datatype": "FP32", "shape": [2**30, 3], "data": [1.0]}
    answer = _infer(client, one, model="branches")
    assert answer.status_code == 422
    assert "tokens, 300000 are allowed" in answer.json()["error"]


def test_errors_of_other_kinds_have_the_protocol_s_shape(client: TestClient) -> None:
    assert client.post("/v2/models/mlp/infer", content=b"{").json()["error"].startswith("the body is not JSON in UTF-8")
    nobody = _infer(client, _input(_x()), model="nobody")
    assert nobody.status_code == 404
    assert nobody.json()["error"].startswith("no model 'nobody' here; there is: mlp, ")
    unknown = _infer(client, _input(_x()), outputs=[{"name": "logits"}])
    assert unknown.json() == {"error": "outputs: no output 'logits'; the model has: output"}
    twice = _infer(client, _input(_x()), _input(_x()))
    assert twice.json() == {"error": "x: expected one input of this name, got another one: send it once"}
    rerank = client.post("/v2/rerank", json={})
    assert isinstance(rerank.json()["error"], dict)  # Cohere's routes keep their shape


def _items(item: bytes, count: int) -> bytes:
    return b"[" + b",".join([item] * count) + b"]"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"inputs": %b}' % _items(b'{"name":"x","datatype":"FP32","shape":[],"data":1}', 20_000), 413, "strings"),
        (b'{"inputs": [], "outputs": %b}' % _items(b'{"name":"x"}', 50_000), 413, "strings"),
        (
            b'{"inputs": [{"name":"x","datatype":"FP32","shape":%b}]}' % _items(b"1", 100_000),
            422,
            "got a shape of 200001 bytes",
        ),
        (b'{"inputs": [{"name":"x","sh\\u0061pe":%b}]}' % _items(b"1", 100_000), 422, "got a shape of 200001 bytes"),
        (b"{" + b'"id": "a", ' * 40_000 + b'"inputs": []}', 413, "strings"),
    ],
)
def test_a_body_of_many_parts_is_refused_before_they_are_built(
    client: TestClient, body: bytes, status: int, message: str
) -> None:
    answer = client.post("/v2/models/mlp/infer", content=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "٣", "1e3", "0x10"])
def test_a_wrong_length_of_the_json_is_refused(client: TestClient, length: str) -> None:
    headers = [(HEADER.encode(), length.encode())]
    answer = client.post("/v2/models/mlp/infer", content=b"{}", headers=headers)
    assert answer.status_code == 400
    assert "expected the length of the JSON" in answer.json()["error"]


def test_more_best_values_than_an_answer_has_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.tensors.inference._MOST_RANKED", 3)
    outputs = [{"name": "output", "parameters": {"classification": 2}}]
    assert _infer(client, _input(_x(1)), outputs=outputs).status_code == 200
    refused = _infer(client, _input(_x(2)), outputs=outputs)
    assert refused.status_code == 422
    assert "4 best values, 3 are allowed" in refused.json()["error"]


@pytest.mark.parametrize(
    ("header", "expected"), [(None, math.inf), ("", math.inf), ("12", 12), ("-1", math.inf), ("1e3", math.inf)]
)
def test_the_length_of_the_json_is_what_the_header_says(header: str | None, expected: float) -> None:
    assert stated_length(header) == expected
