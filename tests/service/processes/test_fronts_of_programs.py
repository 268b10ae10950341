"""Exported programs behind `sonde serve --fronts 2`, over HTTP and gRPC: answers, deaths, keys, and the drain."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.cli import main
from service.config import Settings
from service.errors import CannotListen
from service.processes.supervisor import supervise
from tests.support.jobs import exists
from tests.support.processes import children, servers
from tests.support.programs import host, open_program, program_path
from tests.support.server import Served, free_port, metric, serving, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("executed_programs")]

X = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
LABELS = ["red", "green", "blue", "grey"]
REGISTERED = "ft:program:local:net"


@dataclass
class Fronts:
    """A service with two fronts."""

    served: Served
    grpc_port: int

    @property
    def processes(self) -> dict[str, int]:
        return servers(self.served.process.pid)

    def infer(self, client: httpx.Client, model: str = "net", binary: bool = False) -> httpx.Response:
        """Ask for the outputs of `X`."""
        x: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(X.shape)}
        if not binary:
            return client.post(f"/v2/models/{model}/infer", json={"inputs": [x | {"data": X.ravel().tolist()}]})
        raw = X.tobytes()
        body = {
            "inputs": [x | {"parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
        head = json.dumps(body).encode()
        headers = {"inference-header-content-length": str(len(head))}
        return client.post(f"/v2/models/{model}/infer", content=head + raw, headers=headers)

    def is_ready(self, ready: bool = True) -> bool:
        return httpx.get(f"{self.served.url}/health/ready").status_code == (200 if ready else 503)


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronts]:
    """Two fronts over a described program, and the same program registered and promoted. The last test ends them."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("programs")
    net = folder / "net.pt2"
    shutil.copy(program_path("mlp"), net)
    net.with_suffix(".sonde.json").write_text(
        json.dumps({"task": "classification", "labels": LABELS, "scores": "logits"})
    )
    assert main(["register", str(net), "net", "--home", str(home), "--promote"]) == 0
    port = free_port()
    with serving(home, "--fronts", "2", "--model", f"net={net}", "--grpc-port", str(port)) as served:
        yield Fronts(served, port)


@pytest.fixture(scope="module")
def expected() -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = open_program("mlp").run({"x": host(X)})["output"].values
    return values


def test_both_fronts_answer_from_one_copy(fronts: Fronts, expected: np.ndarray[Any, Any]) -> None:
    for _ in range(2):  # a connection goes to the front that has the fewest
        with httpx.Client(base_url=fronts.served.url, timeout=60) as client:
            for model in ("net", REGISTERED):
                [output] = fronts.infer(client, model).json()["outputs"]
                np.testing.assert_allclose(np.reshape(output["data"], (3, 4)), expected, rtol=1e-4, atol=1e-5)
                answer = fronts.infer(client, model, binary=True)
                values = np.frombuffer(answer.content[int(answer.headers["inference-header-content-length"]) :], "<f4")
                np.testing.assert_allclose(values.reshape(3, 4), expected, rtol=1e-4, atol=1e-5)
                rows = client.post("/v1/classify", json={"model": model, "rows": X.tolist()})
                assert [one["label"] for one in rows.json()["data"]] == [LABELS[at] for at in expected.argmax(1)]
    assert metric(fronts.served.url, "sonde_processes") == 3
    assert metric(fronts.served.url, "sonde_model_info") == 2


def test_a_wrong_shape_is_refused_by_the_front(fronts: Fronts) -> None:
    with httpx.Client(base_url=fronts.served.url, timeout=60) as client:
        refused = client.post("/v1/classify", json={"model": "net", "rows": [[1.0] * 15]})
    assert refused.status_code == 422
    assert "expected 16" in refused.text


def test_grpc_answers_from_both_fronts(fronts: Fronts, expected: np.ndarray[Any, Any]) -> None:
    for _ in range(4):  # the kernel gives each connection to one of them
        np.testing.assert_allclose(_ask_grpc(fronts.grpc_port), expected, rtol=1e-4, atol=1e-5)


def _ask_grpc(port: int) -> np.ndarray[Any, Any]:
    grpc = pytest.importorskip("grpc")
    from service.inference_messages import SERVICE, message

    x = {"name": "x", "datatype": "FP32", "shape": list(X.shape)}
    request = message("ModelInferRequest")(model_name="net", inputs=[x], raw_input_contents=[X.tobytes()])
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=message("ModelInferResponse").FromString,
        )
        answer = call(request, timeout=30)
    return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(3, 4)


def test_a_second_service_cannot_share_the_grpc_port(fronts: Fronts, tmp_path: Path) -> None:
    """Processes share it by SO_REUSEPORT, by which another service could take a part of the calls."""
    settings = Settings.read({"home": tmp_path, "fronts": 2, "port": 0, "grpc_port": fronts.grpc_port})
    with pytest.raises(CannotListen, match="--grpc-port takes another") as refused:
        supervise(settings, [], "service.preloaded")
    assert refused.value.param == "grpc_port"


def test_an_engine_that_is_killed_comes_back_with_its_programs(fronts: Fronts) -> None:
    first = fronts.processes
    with httpx.Client(base_url=fronts.served.url, timeout=60) as client:
        os.kill(first["engine"], signal.SIGKILL)
        wait_until(lambda: fronts.is_ready(False), 10)
        refused = fronts.infer(client)
        assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (503, True)
        wait_until(fronts.is_ready, 60)
        for model in ("net", REGISTERED):
            assert fronts.infer(client, model).status_code == 200
    now = fronts.processes
    assert {name for name in now if now[name] != first[name]} == {"engine"}


def test_a_front_that_is_killed_comes_back_while_the_other_serves(fronts: Fronts) -> None:
    first = fronts.processes
    os.kill(first["front-0"], signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{first['front-0']}").exists())
    for _ in range(5):
        with httpx.Client(base_url=fronts.served.url, timeout=60) as client:
            assert fronts.infer(client).status_code == 200
    wait_until(lambda: metric(fronts.served.url, "sonde_ready") == 2, 60)
    assert fronts.processes["engine"] == first["engine"]
    with httpx.Client(base_url=fronts.served.url, timeout=60) as client:
        assert fronts.infer(client, REGISTERED).status_code == 200


def test_sigterm_ends_all_processes(fronts: Fronts) -> None:
    processes = children(fronts.served.process.pid)
    assert len(processes) == 4, "with the one that they are forked from"
    assert fronts.served.stop() == 0
    assert not any(exists(pid) for pid in processes)
    assert "Traceback" not in (fronts.served.home / "server.log").read_text()
