"""Servers under test as processes of their own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sonde(*flags: str) -> Iterator[tuple[str, int]]:
    """A `sonde serve` on a free port: its URL and process id."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--home", home, "--log-level", "warning", *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                if "ready on " not in line:
                    raise SystemExit(f"sonde did not become ready: {line!r}")
                yield line.split("ready on ")[1].split(" ")[0], process.pid
            finally:
                process.terminate()


@contextmanager
def uvicorn(application: str, port: int) -> Iterator[tuple[str, int]]:
    """Any other application under uvicorn."""
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen(command) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(f"{url}/health")
            yield url, process.pid
        finally:
            process.terminate()


def resident_mb(pid: int) -> float:
    """Megabytes of memory that a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def _wait(url: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit(f"{url} did not answer within {timeout_s:g} s")
