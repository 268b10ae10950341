"""Clients of the Open Inference Protocol, unchanged, in their own environment against one real service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import httpx
import numpy as np
import pytest

from tests.clients.conftest import RunClient
from tests.support.programs import host, open_program, program_path
from tests.support.server import free_port, serving

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"
TEXTS = ["where is my card?", "thẻ của tôi đâu", "I want my money back"]
X = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
_HTTP = """
import numpy as np
import tritonclient.http as triton
client = triton.InferenceServerClient(url.removeprefix("http://"))
"""

HTTP = {
    "raw values": """
text = triton.InferInput("text", [len(TEXTS)], "BYTES")
text.set_data_from_numpy(np.array(TEXTS, dtype=object))
result = client.infer(MODEL, [text]).as_numpy("embedding").tolist()
""",
    "JSON": """
text = triton.InferInput("text", [len(TEXTS)], "BYTES")
text.set_data_from_numpy(np.array(TEXTS, dtype=object), binary_data=False)
output = triton.InferRequestedOutput("embedding", binary_data=False)
result = client.infer(MODEL, [text], outputs=[output], request_id="seven", timeout=30_000_000, priority=2)
assert result.get_response()["id"] == "seven"
result = result.as_numpy("embedding").tolist()
""",
    "gzip": """
text = triton.InferInput("text", [len(TEXTS)], "BYTES")
text.set_data_from_numpy(np.array(TEXTS, dtype=object))
result = client.infer(
    MODEL, [text], request_compression_algorithm="gzip", response_compression_algorithm="gzip"
).as_numpy("embedding").tolist()
""",
    "several at once": """
text = triton.InferInput("text", [len(TEXTS)], "BYTES")
text.set_data_from_numpy(np.array(TEXTS, dtype=object))
running = [client.async_infer(MODEL, [text]) for _ in range(3)]
*_, result = [one.get_result().as_numpy("embedding").tolist() for one in running]
""",
}
TYPES = """
import json, urllib.request
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, RequestOutput
asked = InferenceRequest(inputs=[StringCodec.encode_input("text", TEXTS, use_bytes=False)])
def ask(path, body=None):
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url + path, body, headers)) as answer:
        return answer.read()
assert MetadataModelResponse.model_validate_json(ask(f"/v2/models/{MODEL}")).inputs[0].name == "text"
answer = ask(f"/v2/models/{MODEL}/infer", asked.model_dump_json().encode())
[output] = InferenceResponse.model_validate_json(answer).outputs
result = [output.data.root[at : at + 384] for at in range(0, 384 * len(TEXTS), 384)]
"""


@dataclass(frozen=True)
class Running:
    url: str
    grpc: str


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = free_port()
    flags = ["--model", MODEL, "--model", f"mlp={program_path('mlp')}"]
    if find_spec("grpc_reflection") is not None:
        flags += ["--grpc-port", str(port)]
    with serving(tmp_path_factory.mktemp("home"), *flags) as served:
        yield Running(served.url, f"127.0.0.1:{port}")


@pytest.fixture(scope="module")
def expected(running: Running) -> list[list[float]]:
    answer = httpx.post(f"{running.url}/v1/embeddings", json={"model": MODEL, "input": TEXTS}).json()
    return [item["embedding"] for item in answer["data"]]


def run(client: RunClient, program: str, running: Running) -> Any:
    given = f"MODEL, TEXTS, X, GRPC = {MODEL!r}, {TEXTS!r}, {X.tolist()!r}, {running.grpc!r}\n"
    return client(given + program, running.url)


@pytest.mark.parametrize("name", HTTP)
def test_tritonclient_http_gets_vectors(
    name: str, running: Running, expected: list[list[float]], run_inference_client: RunClient
) -> None:
    vectors = run(run_inference_client, _HTTP + HTTP[name], running)
    np.testing.assert_allclose(vectors, expected, atol=2e-5)


def test_tritonclient_http_asks_for_everything_else(running: Running, run_inference_client: RunClient) -> None:
    program = """
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
assert client.get_server_metadata()["name"] == "sonde"
assert client.get_model_metadata(MODEL)["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
assert client.get_model_config(MODEL)["output"][0]["dims"] == [384]
assert client.get_inference_statistics(MODEL)["model_stats"][0]["name"] == MODEL
assert {one["name"] for one in client.get_model_repository_index()} == {MODEL, "mlp"}
client.load_model(MODEL)
x = triton.InferInput("x", [2, 16], "FP32")
x.set_data_from_numpy(np.array(X, np.float32))
best = client.infer("mlp", [x], outputs=[triton.InferRequestedOutput("output", class_count=2)]).as_numpy("output")
assert best.shape == (2, 2) and len(best[0, 0].decode().split(":")) == 2
errors = []
wrong = triton.InferInput("x", [2, 15], "FP32")
wrong.set_data_from_numpy(np.zeros((2, 15), np.float32))
for work in (lambda: client.infer("mlp", [wrong]), lambda: client.unload_model(MODEL)):
    try:
        work()
    except triton.InferenceServerException as error:
        errors.append(error.message())
result = [client.infer("mlp", [x]).as_numpy("output").tolist(), errors]
"""
    values, (shape, unload) = run(run_inference_client, _HTTP + program, running)
    np.testing.assert_allclose(values, open_program("mlp").run({"x": host(X)})["output"].values, rtol=1e-4, atol=1e-5)
    assert shape == "x: expected float32 [batch, 16], got [2, 15]: dimension 1 is 15, expected 16"
    assert "is a model of the settings" in unload


def test_mlservers_types_are_read_and_written(
    running: Running, expected: list[list[float]], run_mlserver: RunClient
) -> None:
    np.testing.assert_allclose(run(run_mlserver, TYPES, running), expected, atol=2e-5)


def test_tritonclient_grpc_gets_vectors_and_errors(
    running: Running, expected: list[list[float]], run_inference_client: RunClient
) -> None:
    pytest.importorskip("grpc_reflection")
    program = """
import numpy as np
import tritonclient.grpc as triton
client = triton.InferenceServerClient(GRPC)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
assert client.get_server_metadata().name == "sonde"
assert client.get_model_metadata(MODEL).outputs[0].shape == [-1, 384]
assert {one.name for one in client.get_model_repository_index().models} == {MODEL, "mlp"}
config = client.get_model_config("mlp").config
assert (config.max_batch_size, config.input[0].data_type, list(config.output[0].dims)) == (64, 11, [4])
assert client.get_model_config("mlp", as_json=True)["config"]["input"][0]["data_type"] == "TYPE_FP32"
client.load_model(MODEL)
text = triton.InferInput("text", [len(TEXTS)], "BYTES")
text.set_data_from_numpy(np.array(TEXTS, dtype=object))
vectors = client.infer(MODEL, [text], timeout=30_000_000, client_timeout=30).as_numpy("embedding").tolist()
x = triton.InferInput("x", [2, 16], "FP32")
x.set_data_from_numpy(np.array(X, np.float32))
best = client.infer("mlp", [x], outputs=[triton.InferRequestedOutput("output", class_count=2)], priority=2)
assert best.as_numpy("output").shape == (2, 2)
[stats] = client.get_inference_statistics("mlp").model_stats
assert stats.inference_count >= 2 and stats.execution_count >= 1 and stats.inference_stats.compute_infer.ns > 0
assert {one.name for one in client.get_inference_statistics().model_stats} == {MODEL, "mlp"}
wrong = triton.InferInput("x", [2, 15], "FP32")
wrong.set_data_from_numpy(np.zeros((2, 15), np.float32))
try:
    client.infer("mlp", [wrong])
except triton.InferenceServerException as error:
    result = [vectors, error.status(), error.message()]
"""
    vectors, status, message = run(run_inference_client, program, running)
    np.testing.assert_allclose(vectors, expected, atol=2e-5)
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message == "x: expected float32 [batch, 16], got [2, 15]: dimension 1 is 15, expected 16"


@pytest.mark.parametrize("protocol", ["REST", "REST, raw values", "gRPC"])
def test_kserves_client_gets_vectors(
    protocol: str, running: Running, expected: list[list[float]], run_kserve_client: RunClient
) -> None:
    if protocol == "gRPC":
        pytest.importorskip("grpc_reflection")
    program = """
import asyncio
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.inference_client import InferenceGRPCClient
async def ask():
    text = InferInput("text", [len(TEXTS)], "BYTES")
    text.set_data_from_numpy(np.array(TEXTS, dtype=object), binary_data=PROTOCOL != "REST")
    asked = InferRequest(MODEL, [text])
    if PROTOCOL == "gRPC":
        async with InferenceGRPCClient(GRPC) as client:
            assert await client.is_server_ready() and await client.is_model_ready(MODEL)
            return await client.infer(asked)
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_ready(url) and await client.is_model_ready(url, MODEL)
    return await client.infer(url, asked, model_name=MODEL)
result = asyncio.run(ask()).outputs[0].as_numpy().tolist()
"""
    vectors = run(run_kserve_client, f"PROTOCOL = {protocol!r}\n{program}", running)
    np.testing.assert_allclose(vectors, expected, atol=2e-5)
