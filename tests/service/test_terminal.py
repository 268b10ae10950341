"""Sonde on a terminal: the banner, colours, and one line for each thing that happens."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.auth import Keyring
from tests.support.programs import PROGRAM
from tests.support.server import metric, wait_until
from tests.support.terminal import CTRL_C, Terminal

pytestmark = [pytest.mark.slow, pytest.mark.real]

HALF_A_BODY = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
)


@contextmanager
def terminal(command: str, home: Path, *flags: str) -> Iterator[tuple[Terminal, str]]:
    """A service on a terminal, ready, and its address."""
    shown = Terminal(command, "--port", "0", "--home", str(home), *flags)
    try:
        shown.wait_for("stop    Ctrl-C")
        yield shown, shown.plain.split("ready on ")[1].split(" ")[0]
    finally:
        shown.close()


def test_a_terminal_shows_the_banner_requests_and_the_end(tmp_path: Path) -> None:
    with terminal("serve", tmp_path) as (shown, url):
        assert "\x1b[1;32mSonde is ready on " in shown.raw
        assert re.search(r"info     sonde serve \S+ starts  port=0 home=", shown.plain)
        assert re.search(r"  serves  all-MiniLM-L6-v2  embedding  cpu  \w+\n", shown.plain)
        httpx.get(f"{url}/v1/nowhere")
        [command] = re.findall(r"^  try     (curl .*)$", shown.plain, re.MULTILINE)
        answer = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=True)
        assert len(json.loads(answer.stdout)["data"][0]["embedding"]) == 384
        shown.wait_for("POST /v1/embeddings  200  ")
        assert re.search(r"POST /v1/embeddings  200  [\d.]+ ms  all-MiniLM-L6-v2:\w+  3 tokens\n", shown.plain)
        assert "GET /v1/nowhere  404 route_not_found" in shown.plain
        shown.press(CTRL_C)
        assert shown.process.wait(30) == 0
    assert "draining: answering 0 open requests, Ctrl-C again ends at once" in shown.plain
    assert "sonde serve has stopped" in shown.plain
    assert '{"' not in shown.plain.replace(command, "")


def test_with_keys_the_command_works_with_a_key_in_the_environment(tmp_path: Path) -> None:
    _, secret = Keyring(tmp_path / "keys.json").create(["infer"])
    with terminal("serve", tmp_path) as (shown, _):
        [command] = re.findall(r"^  try     (curl .*)$", shown.plain, re.MULTILINE)
        environment = {**os.environ, "SONDE_API_KEY": secret}
        answer = subprocess.run(["sh", "-c", command], capture_output=True, env=environment, timeout=60, check=True)
        assert len(json.loads(answer.stdout)["data"]) == 1
        assert secret not in shown.plain


@pytest.mark.parametrize("command", [("up",), ("serve", "--workers", "2")])
def test_several_processes_say_each_thing_once(command: tuple[str, ...], tmp_path: Path) -> None:
    name, *flags = command
    with terminal(name, tmp_path, *flags, *PROGRAM) as (shown, url):
        assert httpx.get(f"{url}/health/ready").status_code == 200
        shown.press(CTRL_C)
        assert shown.process.wait(60) == 0
    for once in ("starts", "Sonde is ready on", "stop    Ctrl-C", "Ctrl-C again ends", "has stopped"):
        assert shown.plain.count(once) == 1, shown.plain
    times = re.compile(r"(\d\d:\d\d:\d\d (info|warning|error) |Sonde is ready|  (serves|try|stop)  |\^C|$)")
    assert [line for line in shown.plain.split("\n") if not times.match(line)] == []


def test_a_second_ctrl_c_ends_a_busy_service_of_up_at_once(tmp_path: Path) -> None:
    with terminal("up", tmp_path, "--shutdown-s", "50", *PROGRAM) as (shown, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(HALF_A_BODY)
            wait_until(lambda: metric(url, "sonde_requests_in_flight") == 2)  # with the one that asks
            shown.press(CTRL_C)
            shown.wait_for("draining: answering 1 open requests")
            time.sleep(0.5)
            assert shown.process.poll() is None
            began = time.monotonic()
            shown.press(CTRL_C)
            shown.process.wait(20)
            assert time.monotonic() - began < 10
    assert "ended at once: 1 requests get no answer" in shown.plain
