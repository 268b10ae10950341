"""What a connection is answered that does not send what it should, and what the log says of it."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from service.api.http_protocol import CONNECTION, TimeoutProtocol
from service.api.json_body import read_bytes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Impatient(TimeoutProtocol):
    receive_timeout_s = 0.2


async def refuse_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without reading the body, as a body too large is answered."""
    names = [name.decode() for name, _ in scope["headers"]]
    await JSONResponse({"method": scope["method"], "headers": names}, 413)(scope, receive, send)


def talk(*parts: bytes, pause_s: float = 0.05, app: ASGIApp = refuse_at_once) -> bytes:
    """Send parts on one connection; all that comes back until the server closes it."""

    async def run() -> bytes:
        config = Config(app, log_config=None, access_log=False, ws="none", lifespan="off", timeout_keep_alive=1)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: Impatient(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_s)
        try:
            return await asyncio.wait_for(reader.read(), 60)
        finally:
            writer.close()
            await writer.wait_closed()
            server.close()

    return asyncio.run(run())


def test_http_2_without_an_upgrade_is_told_to_speak_http_1_1() -> None:
    answer = talk(PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    settings, goaway = answer[:9], answer[9:]
    assert settings == b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    assert (int.from_bytes(goaway[:3]), goaway[3]) == (len(goaway) - 9, 7)
    assert int.from_bytes(goaway[13:17]) == 13, "HTTP_1_1_REQUIRED"
    assert b"speak HTTP/1.1" in goaway


def test_the_rest_of_a_refused_body_is_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answer = talk(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 100)
    assert answer.startswith(b"HTTP/1.1 413")
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize(
    "parts",
    [
        (b"POST / HTTP/1.1\r\nhost: a\r\n",),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", b"POST / HTTP/1.1\r\nhost"),
    ],
)
def test_a_head_that_does_not_come_is_one(parts: tuple[bytes, ...], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        talk(*parts)
    assert [record.getMessage() for record in caplog.records] == [
        "closed a connection whose request did not come within 0.2 s"
    ]


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
def test_no_library_for_websockets_is_asked_for(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = talk(head.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 4")
    assert [line for line in map(logging.LogRecord.getMessage, caplog.records) if "pgrade" in line] == []
    assert "WebSocket" not in caplog.text


@pytest.mark.parametrize("upgrade", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"])
def test_what_follows_a_body_is_no_header(upgrade: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n" + upgrade
    answer = talk(head + b"\r\n1\r\na\r\n0\r\nauthorization: Bearer a\r\norigin: http://a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"transfer-encoding"' in answer
    assert b"authorization" not in answer
    assert b"origin" not in answer


def test_a_body_that_is_not_read_waits_with_its_sender() -> None:
    body, came = bytes(range(256)) * 2**15, []

    async def read_late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)
        came.append(scope["state"][CONNECTION]._arrived_bytes)
        assert await read_bytes(receive, {}, len(body)) == body
        await JSONResponse({}, headers={"connection": "close"})(scope, receive, send)

    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert talk(head + body, app=read_late).startswith(b"HTTP/1.1 200")
    assert 2**18 < came[0] < 2**20 < len(body)


def test_a_hang_up_is_noticed_after_a_large_body_that_came_at_once() -> None:
    body, paused = bytes(2**18 + 1), []

    async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope["state"][CONNECTION]
        reading = asyncio.ensure_future(read_bytes(receive, {}, len(body)))
        await asyncio.sleep(0)  # until it waits
        connection.data_received(body)  # as uvloop reads it
        assert await reading == body
        paused.append(connection.flow.read_paused)  # then the end of the connection would not be read
        await JSONResponse({}, headers={"connection": "close"})(scope, receive, send)

    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert talk(head, app=read_all).startswith(b"HTTP/1.1 200")
    assert paused == [False]


def test_many_parts_that_come_before_they_are_read_are_not_copied_with_each() -> None:
    sizes: list[int] = []

    async def read_late(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope["state"][CONNECTION]
        connection.on_body(b"a")
        connection.on_body(b"b")
        joined = connection.cycle.body
        connection.on_body(b"c")
        assert connection.cycle.body is joined
        sizes.append(len(await read_bytes(receive, {}, 10)))
        await JSONResponse({}, headers={"connection": "close"})(scope, receive, send)

    chunks = b"1\r\nx\r\n1\r\ny\r\n0\r\n\r\n"
    talk(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + chunks, app=read_late)
    assert sizes == [5]


@pytest.mark.parametrize("broken", [b"ZZ\r\n", b"-1\r\n", b"F" * 17 + b"\r\n"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_body_that_breaks_is_answered(broken: bytes, parts: int) -> None:
    async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
        await read_bytes(receive, {}, 100)

    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = talk(*([head + broken] if parts == 1 else [head, broken]), app=read_all)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b'"code":"malformed_request"' in answer


def test_an_answered_request_whose_body_breaks_gets_no_other_answer() -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    answers = talk(head, b"ZZ\r\n")
    assert answers.startswith(b"HTTP/1.1 413")
    assert answers.count(b"HTTP/1.1") == 1


def test_an_answer_that_has_begun_is_not_followed_by_another() -> None:
    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await read_bytes(receive, {}, 100)

    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    assert talk(head, b"ZZ\r\n", app=begin).count(b"HTTP/1.1") == 1
