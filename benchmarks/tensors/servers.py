"""The compared servers as processes, each in its own virtual environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import environment
from benchmarks.processes import free_port
from benchmarks.tensors.network import COLUMNS

MODEL = "net"
VENVS = Path(".venv-tensors")
_HERE = Path(__file__).parent
_START_S, _POLL_S = 60.0, 0.1
# What a server that is not used yet is asked, to know that it computes.
_ROW = {"name": "x", "datatype": "FP32", "shape": [1, COLUMNS], "data": [0.0] * COLUMNS}
_V2 = f"/v2/models/{MODEL}/infer"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A way to reach the network: `json` and `raw` values of the protocol, `grpc`, or `list`, LitServe's own body."""

    name: str
    url: str
    kind: str


def install(rivals: Sequence[str]) -> None:
    """Make the rivals' environments, unless they are there."""
    for name in rivals:
        venv = VENVS / name
        environment.make(venv, _HERE / f"{name}.txt", holds=f"lib/python*/site-packages/{name}", over_this=True)


@contextmanager
def sonde(*flags: str, name: str = "sonde") -> Iterator[list[Endpoint]]:
    """Run `sonde serve` with the exported network, with any flags."""
    rpc = free_port()
    with serving_program(MODEL, "benchmarks.tensors.network:make", _ROW, "--grpc-port", str(rpc), *flags) as url:
        yield [
            Endpoint(f"{name}, JSON", url, "json"),
            Endpoint(f"{name}, raw values", url, "raw"),
            Endpoint(f"{name}, gRPC", f"http://127.0.0.1:{rpc}", "grpc"),
        ]


@contextmanager
def serving_program(name: str, entry: str, row: Mapping[str, object], *flags: str, threads: int = 1) -> Iterator[str]:
    """Export what the function `entry` makes and run `sonde serve` with it; its URL, once it answers `row`."""
    with tempfile.TemporaryDirectory() as home:
        program, port = Path(home) / f"{name}.pt2", free_port()
        export = [sys.executable, "-m", "service.cli", "export", entry, str(program)]
        subprocess.run(export, check=True, capture_output=True)
        command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--home", home]
        command += ["--model", f"{name}={program}", "--log-level", "warning", *flags]
        url = f"http://127.0.0.1:{port}"
        with started(command, f"{url}/v2/models/{name}/infer", {"inputs": [row]}, threads):
            yield url


@contextmanager
def constant() -> Iterator[list[Endpoint]]:
    """Run the servers that compute nothing."""
    port, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "benchmarks.tensors.constant_server", str(port), str(rpc)]
    url = f"http://127.0.0.1:{port}"
    with started(command, f"{url}{_V2}", {"inputs": [_ROW]}):
        yield [
            Endpoint("a constant by uvicorn, JSON", url, "json"),
            Endpoint("a constant by grpc.aio, gRPC", f"http://127.0.0.1:{rpc}", "grpc"),
        ]


@contextmanager
def mlserver(workers: int, most: int = 0) -> Iterator[list[Endpoint]]:
    """Run MLServer: with a pool of `workers`, 0 for none, and batches of at most `most` requests, 0 for none."""
    http, rpc, metrics = free_port(), free_port(), free_port()
    settings = {"http_port": http, "grpc_port": rpc, "metrics_port": metrics, "parallel_workers": workers}
    batches = {"max_batch_size": most, "max_batch_time": 0.002} if most else {}
    model = {"name": MODEL, "implementation": "benchmarks.tensors.mlserver_model.MlServerModel", **batches}
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "settings.json").write_text(json.dumps({**settings, "debug": False, "host": "127.0.0.1"}))
        (Path(directory) / "model-settings.json").write_text(json.dumps(model))
        command = [str(VENVS / "mlserver" / "bin" / "mlserver"), "start", directory]
        name = f"mlserver ({workers} workers{f', batches of {most}' if most else ''})"
        url = f"http://127.0.0.1:{http}"
        with started(command, f"{url}{_V2}", {"inputs": [_ROW]}):
            yield [Endpoint(f"{name}, JSON", url, "json"), Endpoint(f"{name}, gRPC", f"http://127.0.0.1:{rpc}", "grpc")]


@contextmanager
def litserve(most: int, wait_s: float) -> Iterator[list[Endpoint]]:
    """Run LitServe with batches of at most `most` requests, which wait for others for `wait_s`."""
    port = free_port()
    python = str(VENVS / "litserve" / "bin" / "python")
    command = [python, "-m", "benchmarks.tensors.litserve_server", str(port), str(most), str(wait_s)]
    url = f"http://127.0.0.1:{port}"
    with started(command, f"{url}/predict", {"input": _ROW["data"]}):
        yield [Endpoint(f"litserve (batches of {most})", url, "list")]


@contextmanager
def started(command: Sequence[str], url: str, body: Mapping[str, Any], threads: int = 1) -> Iterator[None]:
    """Run a server with a number of PyTorch's threads until the end of the block; then end it with all its children."""
    variables = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables) as process:
        try:
            _wait(url, body, process)
            yield
        finally:
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for one in family:
                one.terminate()
            for one in psutil.wait_procs(family, timeout=3)[1]:  # LitServe's ignore SIGTERM
                one.kill()


def _wait(url: str, body: Mapping[str, Any], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.post(url, json=body, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(_POLL_S)
    raise SystemExit(f"{' '.join(command_of(process))} did not answer within {_START_S:g} s")


def command_of(process: subprocess.Popen[bytes]) -> list[str]:
    """The command of a process, as words."""
    return [str(word) for word in process.args] if isinstance(process.args, list) else [str(process.args)]
