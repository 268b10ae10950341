"""A real server process, and how tests watch one."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest


class Served:
    """A `sonde serve` process and its URL."""

    def __init__(self, process: subprocess.Popen[str], url: str, home: Path) -> None:
        self.process = process
        self.url = url
        self.home = home

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def serving(home: Path, *flags: str, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """Start `sonde serve` on a free port and wait until it is ready."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--home", str(home), *flags]
    log = (home / "server.log").open("w")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(environment or {})}
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "ready on " not in line:
            process.kill()
            pytest.fail(f"the server said {line!r}; its log: {(home / 'server.log').read_text()[-3000:]}")
        yield Served(process, line.split("ready on ")[1].split(" ")[0], home)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
        log.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Poll until the condition holds, or fail. Polls become rarer, for a poll of a service costs both processes."""
    began = time.monotonic()
    while not condition():
        if (waited_s := time.monotonic() - began) > timeout_s:
            raise AssertionError("it did not happen in time")
        time.sleep(min(max(0.005, waited_s / 20), 0.1))


def free_port() -> int:
    """A port without a listener, below those that Linux gives to connections, one of which could take it meanwhile."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def metric(base_url: str, name: str) -> float:
    """The sum of a metric's samples at a server."""
    lines = httpx.get(f"{base_url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)
