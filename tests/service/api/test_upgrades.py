"""Requests that ask for an upgrade are answered as if they had not asked (RFC 9110, 7.8)."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.http_protocol import RequestParser
from tests.support import tiny_models
from tests.support.server import Served, serving

BODY = b'{"model": "tiny", "input": "hello"}'
H2C = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
)
WEBSOCKET = b"Upgrade: websocket\r\nconnection: keep-alive , UPGRADE\r\n"
UPGRADES = [H2C, WEBSOCKET]


class Listener:
    """Keeps what a parser reports, as uvicorn's protocol does."""

    def __init__(self) -> None:
        self.parser = RequestParser(self)
        self.requests: list[list[Any]] = []

    def on_message_begin(self) -> None:
        self.url, self.headers, self.body = b"", list[tuple[bytes, bytes]](), b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.method = self.parser.get_method()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if not self.parser.is_provisional():
            self.requests.append([self.method, self.url, self.body, self.parser.should_keep_alive()])


def chunked(body: bytes) -> bytes:
    return b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])


def request(headers: bytes, body: bytes = BODY, *, chunks: bool = False) -> bytes:
    size = b"Transfer-Encoding: chunked" if chunks else b"Content-Length: %d" % len(body)
    return b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%b%b\r\n\r\n%b" % (
        headers,
        size,
        chunked(body) if chunks else body,
    )


SEVERAL = b"".join(
    [
        request(H2C),
        request(WEBSOCKET, chunks=True),
        request(b""),
        b"GET /a?b=c HTTP/1.1\r\nHost: localhost\r\n" + WEBSOCKET + b"\r\n",
        request(b"Upgrade: h2c\r\n"),  # without Connection, so it never was an upgrade
        request(b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
    ]
)


@given(cuts=st.lists(st.integers(0, len(SEVERAL)), max_size=8))
def test_bodies_belong_to_their_requests_however_they_are_split(cuts: list[int]) -> None:
    listener = Listener()
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(SEVERAL)], strict=True):
        listener.parser.feed_data(SEVERAL[begin:end])
    post = [b"POST", b"/v1/embeddings", BODY, True]
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    assert listener.requests == [
        *([post] * 3),
        [b"GET", b"/a?b=c", b"", True],
        post,
        [b"POST", b"/v1/embeddings", smuggled, False],
    ]


def test_single_bytes_are_enough() -> None:
    listener = Listener()
    for byte in SEVERAL:
        listener.parser.feed_data(bytes([byte]))
    assert len(listener.requests) == 6


def test_other_headers_stay_as_they_came() -> None:
    listener = Listener()
    listener.parser.feed_data(b"GET / HTTP/1.1\r\nHost: h\r\nX-A: \xe4: b\r\nX-A: 2\r\n" + H2C + b"\r\n")
    options = dict(listener.headers)[b"connection"].strip()
    assert options == b"HTTP2-Settings"
    others = [pair for pair in listener.headers if pair[0] not in {b"connection", b"http2-settings"}]
    assert others == [(b"host", b"h"), (b"x-a", b"\xe4: b"), (b"x-a", b"2")]


def test_trailers_upgrade_nothing() -> None:
    listener = Listener()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    listener.parser.feed_data(head + WEBSOCKET + b"\r\n" + request(b""))
    assert [found[2] for found in listener.requests] == [b"a", BODY]


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_upgrade_excuses_no_broken_framing(upgrade: bytes) -> None:
    both = b"Transfer-Encoding: chunked\r\n" + upgrade
    with pytest.raises(httptools.HttpParserError):
        Listener().parser.feed_data(request(both))
    twice = b"Content-Length: 3\r\n" + upgrade
    with pytest.raises(httptools.HttpParserError):
        Listener().parser.feed_data(request(twice))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory: Path = tmp_path_factory.mktemp("upgrade")
    model = tiny_models.encoder(directory / "model")
    with serving(directory, "--model", f"tiny={model}", "--cache-mb", "1") as running:
        yield running


def connect(served: Served) -> socket.socket:
    parts = urlsplit(served.url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20)


def answer(connection: socket.socket, method: str = "POST") -> tuple[int, Any]:
    response = HTTPResponse(connection, method=method)
    response.begin()
    return response.status, json.loads(response.read())


def says_no_more(connection: socket.socket) -> bool:
    connection.settimeout(0.3)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return True


@pytest.mark.real
@pytest.mark.slow
def test_two_hundred_posts_of_javas_client_are_answered(served: Served) -> None:
    statuses = []
    for number in range(200):
        with connect(served) as connection:
            whole = request(H2C, chunks=number % 2 == 1)
            cut = number if number < len(whole) else len(whole)
            connection.sendall(whole[:cut])
            connection.sendall(whole[cut:])
            statuses.append(answer(connection)[0])
    assert statuses == [200] * 200


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("chunks", [False, True])
def test_a_body_that_comes_later_is_still_the_body(served: Served, upgrade: bytes, chunks: bool) -> None:
    inner = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    for body, expected in ((BODY, 200), (inner, 400)):
        whole = request(upgrade, body, chunks=chunks)
        head = whole.index(b"\r\n\r\n") + 4
        with connect(served) as connection:
            connection.sendall(whole[:head])
            time.sleep(0.5)
            connection.sendall(whole[head:])
            assert answer(connection)[0] == expected
            assert says_no_more(connection)


@pytest.mark.real
@pytest.mark.slow
def test_a_request_behind_a_get_that_asks_for_an_upgrade_is_answered(served: Served) -> None:
    get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + WEBSOCKET + b"\r\n"
    with connect(served) as connection:
        connection.sendall(get + request(H2C) + get)
        stream = b""
        while stream.count(b"HTTP/1.1 200") < 3:
            received = connection.recv(65536)
            assert received, stream
            stream += received
        connection.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            stream += connection.recv(65536)
    assert stream.count(b"HTTP/1.1 ") == 3


@pytest.mark.real
@pytest.mark.slow
def test_an_upload_that_asks_for_an_upgrade_is_whole(served: Served) -> None:
    content = b'{"text": "a", "label": "b"}\n' * 4000
    parts = (
        b'--cut\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n%b\r\n--cut--\r\n' % content
    )
    head = (
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=cut\r\n"
        b"%bContent-Length: %d\r\n\r\n" % (H2C, len(parts))
    )
    with connect(served) as connection:
        connection.sendall(head)
        time.sleep(0.5)
        connection.sendall(parts)
        status, made = answer(connection)
    assert (status, made["bytes"]) == (200, len(content))
