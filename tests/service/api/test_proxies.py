"""Requests that ask for an upgrade, behind nginx and HAProxy as they come from Debian."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.server import Served, free_port, wait_until

pytestmark = [pytest.mark.real, pytest.mark.slow]

BODY = json.dumps({"model": "all-MiniLM-L6-v2", "input": "hello"}).encode()
UPGRADES = {
    "h2c": b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n",
    "none": b"",
}
# The headers that pages on websockets tell nginx to pass on.
NGINX = """
daemon off; pid {home}/nginx.pid; error_log {home}/nginx.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  upstream sonde {{ server {server}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://sonde; proxy_http_version 1.1; proxy_request_buffering off;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; proxy_set_header Host localhost;
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen sonde
  bind 127.0.0.1:{port}
  server sonde {server}
"""


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def proxy(request: pytest.FixtureRequest, server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a proxy in front of the server."""
    with _running(request.param, urlsplit(server.url).netloc, tmp_path_factory.mktemp("proxy")) as port:
        yield port


@contextmanager
def _running(program: str, server: str, home: Path) -> Iterator[int]:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    port, configuration = free_port(), home / "configuration"
    template = {"nginx": NGINX, "haproxy": HAPROXY}[program]
    configuration.write_text(template.format(home=home, server=server, port=port))
    flags = {"nginx": ["-p", str(home), "-c"], "haproxy": ["-db", "-f"]}[program]
    with (home / "log").open("wb") as log, subprocess.Popen([found, *flags, configuration], stderr=log) as process:
        try:
            wait_until(lambda: _listens(port) or process.poll() is not None, 20)
            assert process.poll() is None, (home / "log").read_text()
            yield port
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except ConnectionRefusedError:
        return False


def request(upgrade: bytes, *, chunks: bool) -> tuple[bytes, bytes]:
    """The head and the body of a POST."""
    length = b"Transfer-Encoding: chunked" if chunks else b"Content-Length: %d" % len(BODY)
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%b%b\r\n\r\n"
    return head % (upgrade, length), b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if chunks else BODY


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_a_body_that_comes_later_is_read(proxy: int, upgrade: str, chunks: bool) -> None:
    head, body = request(UPGRADES[upgrade], chunks=chunks)
    with socket.create_connection(("127.0.0.1", proxy), timeout=30) as connection:
        connection.sendall(head)
        time.sleep(0.5)
        connection.sendall(body)
        answer = HTTPResponse(connection, method="POST")
        answer.begin()
        assert (answer.status, json.loads(answer.read())["object"]) == (200, "list")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_requests_after_each_other_are_answered_in_order(proxy: int, upgrade: str) -> None:
    head, body = request(UPGRADES[upgrade], chunks=False)
    with socket.create_connection(("127.0.0.1", proxy), timeout=30) as connection:
        for number in range(20):
            whole, cut = head + body, number * 20
            connection.sendall(whole[:cut])
            connection.sendall(whole[cut:])
            answer = HTTPResponse(connection, method="POST")
            answer.begin()
            assert answer.status == 200
            answer.read()
