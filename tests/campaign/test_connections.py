"""500 slow and 500 idle connections at once hold up no other caller, and are closed."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.campaign.conftest import Figure
from tests.support import tiny_models
from tests.support.processes import open_files
from tests.support.server import serving, wait_until
from tests.support.size import Size

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"
HEAD = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
)
DRIP_S = 0.1
RECEIVE_S = 2.0
MOST_LATENCY_S = 2.0


def test_slow_and_idle_connections_hold_up_no_caller(tmp_path: Path, size: Size, figure: Figure) -> None:
    each = size.of(100, 500)
    _allow_files(4 * each + 200)
    flags = ("--receive-timeout-s", str(RECEIVE_S), "--model", f"{MODEL}={tiny_models.encoder(tmp_path / 'model')}")
    with serving(tmp_path, *flags) as served, contextlib.ExitStack() as stack:
        files = open_files(served.process.pid)
        idle = [stack.enter_context(_connect(served.url)) for _ in range(each)]
        slow = [stack.enter_context(_connect(served.url)) for _ in range(each)]
        for one in slow:
            one.sendall(HEAD)
        latencies = list(_ask_while_dripping(served.url, slow, RECEIVE_S * 2))
        closed = sum(map(_is_closed, idle + slow))
        worst = max(latencies)
        figure(f"{2 * each} connections, worst of {len(latencies)} answers {1000 * worst:.0f} ms, {closed} closed")
        assert worst < MOST_LATENCY_S
        assert closed == 2 * each
        wait_until(lambda: open_files(served.process.pid) <= files + 2, 10)


def _ask_while_dripping(url: str, slow: list[socket.socket], seconds: float) -> Iterator[float]:
    """Send a byte on every slow connection again and again; yield the seconds of a request in between."""
    end = time.monotonic() + seconds
    with httpx.Client(base_url=url, timeout=30) as other:
        while time.monotonic() < end:
            for one in slow:
                with contextlib.suppress(OSError):  # closed by the server
                    one.send(b" ")
            began = time.monotonic()
            assert other.post("/v1/embeddings", json={"model": MODEL, "input": f"text {began}"}).status_code == 200
            yield time.monotonic() - began
            time.sleep(DRIP_S)


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30)


def _is_closed(one: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ)
        if not selector.select(0.1):
            return False
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
