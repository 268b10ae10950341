"""uvicorn's HTTP protocol with limits on slow and on endless senders.

It ignores `Upgrade`, as RFC 9110 (7.8) lets a server do.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Callable
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.error_responses import envelope

log = logging.getLogger(__name__)

# Limit of a request's line and headers, and of what may come between the parts of a body.
MOST_HEAD_BYTES = 64 * 2**10
# Up to 256 KiB of a body that is not asked for wait in the connection, the rest in the kernel.
_MOST_UNREAD_BYTES = 256 * 2**10
# The first bytes of a client that speaks HTTP/2 without asking, and what it is answered.
_HTTP2_PREFACE = b"PRI * HTTP/2.0"
# The key of a request's state under which its connection is.
CONNECTION = "connection"
_SETTINGS, _GOAWAY, _HTTP_1_1_REQUIRED = 4, 7, 13


class JoinedWrites(asyncio.Transport):
    """A transport that sends what was written at `flush`, or at the next turn of the event loop.

    uvicorn writes head and body separately, and so they take one call of the system.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes | bytearray | memoryview[Any]] = []

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """See asyncio.Transport."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Send what was written since the last time, unless the connection is gone."""
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.writelines(parts)

    def close(self) -> None:
        """See asyncio.Transport."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio.Transport."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """See asyncio.Transport."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio.Transport."""
        self._transport.resume_reading()


class RequestHead(Protocol):
    """What has come of a request's head, in the protocol that the parser calls back."""

    url: bytes
    headers: list[tuple[bytes, bytes]]


class RequestParser(httptools.HttpRequestParser):
    """httptools' parser, which reads the body of a request that asks for an upgrade.

    httptools ends such a request with its head, so that its body would be the next request. This parser then starts
    anew with the same head, without the upgrade. `is_provisional` is true for the callbacks that come before.
    """

    def __init__(self, protocol: RequestHead) -> None:
        super().__init__(protocol)
        self._protocol = protocol
        # The answer to the first of several requests must not depend on what comes after it.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def is_provisional(self) -> bool:
        """Whether the head will come again without its upgrade."""
        return self.should_upgrade() and self.get_method() != b"CONNECT"

    def feed_data(self, data: bytes | bytearray | memoryview[int] | array[int]) -> None:
        """Parse bytes. Raises HttpParserError, and HttpParserUpgrade after the head of CONNECT."""
        rest = memoryview(data)
        while True:
            try:
                super().feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                if not self.is_provisional():
                    raise
                rest = rest[upgrade.args[0] :]
                self._read_again(self._head_without_upgrade())
            else:
                return

    def _read_again(self, head: bytes) -> None:
        self.__init__(self._protocol)  # type: ignore[misc]  # how httptools resets a parser
        super().feed_data(head)

    def _head_without_upgrade(self) -> bytes:
        """The head that came; httptools lets no line break into a value."""
        lines = [b"%b %b HTTP/%b" % (self.get_method(), self._protocol.url, self.get_http_version().encode())]
        for name, value in self._protocol.headers:
            if name == b"connection":
                value = b",".join(option for option in value.split(b",") if option.strip().lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])


class TimeoutProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which closes connections that send too slowly or an endless head.

    uvicorn itself would wait forever. A request has `receive_timeout_s` to arrive. It has as long again, and so on,
    while its body comes at `min_receive_bytes_per_s` or more on average: a large upload may take its time, a slow one
    may not.
    """

    receive_timeout_s = 15.0
    min_receive_bytes_per_s = 4096
    on_closed: Callable[[], None] | None = None
    parser: RequestParser
    is_lost = False
    _working: asyncio.Task[Any] | None = None
    _timer: asyncio.TimerHandle | None = None
    _arrived_bytes = 0
    _head_bytes = 0
    _made_progress = False
    _in_head = False
    _in_body = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = RequestParser(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the timer for the first request."""
        self._writes = JoinedWrites(transport, self.loop)
        super().connection_made(self._writes)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a head, or what follows a body, once it is too long."""
        self._made_progress = False
        if self.cycle is None and data.startswith(_HTTP2_PREFACE):
            self._refuse_http2()
            return
        super().data_received(data)
        self._head_bytes = 0 if self._made_progress else self._head_bytes + len(data)
        if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the request's head may have {MOST_HEAD_BYTES} bytes", "head_too_large")
        # uvicorn cancels the keep-alive timeout at the first byte, before there is a request.
        if self._is_idle() and self.timeout_keep_alive_task is None:
            self._start_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP with our error envelope."""
        self._refuse(400, "the request is not HTTP/1.1", "malformed_request")

    def on_message_begin(self) -> None:
        """Start the timer for the rest of this request."""
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self
        self._made_progress = True
        self._in_head = True
        self._arrived_bytes = 0
        self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; leave out those after a body, which no proxy checks (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start to answer, unless the head comes again without its upgrade."""
        if self.parser.is_provisional():
            return
        self._in_head = False
        super().on_headers_complete()
        self._in_body = True
        if self.parser.should_upgrade():  # CONNECT: no request can follow it
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Keep bytes of the body until they are asked for.

        The route gets the only part that waits without a copy; uvicorn would copy it twice.
        """
        self._made_progress = True
        self._arrived_bytes += len(body)
        cycle: Any = self.cycle
        if cycle.response_complete:
            return
        if not cycle.body:
            cycle.body = body
        elif isinstance(cycle.body, bytes):
            cycle.body = bytearray(cycle.body) + body
        else:
            cycle.body += body  # in place, however many parts wait
        if len(cycle.body) > _MOST_UNREAD_BYTES:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Stop the timer; between requests the keep-alive timeout runs."""
        if self.parser.is_provisional():
            return
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()
        if not self.pipeline:  # the last part may have paused it, and a hang-up must be noticed
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """Send the answer before the threads that compute get Python's lock."""
        self._writes.flush()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, and report the closed connection."""
        self._stop_timer()
        self.is_lost = True
        super().connection_lost(exc)
        if self._working is not None:
            self._working.cancel()
        if self.on_closed is not None:
            self.on_closed()

    def cancel_when_lost(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel a task of the request that is being answered, should the caller hang up before the next call."""
        self._working = task
        if self.is_lost and task is not None:
            task.cancel()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: uvicorn would tell the operator to install a library for WebSockets."""

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.receive_timeout_s, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        if self._is_progressing():
            self._arrived_bytes = 0
            self._start_timer()
        elif self.transport and not self.transport.is_closing():
            # The rest of a body that was refused is no news: its caller has the answer.
            level = logging.INFO if self._in_head or not self._is_idle() else logging.DEBUG
            log.log(level, "closed a connection whose request did not come within %g s", self.receive_timeout_s)
            self.transport.close()

    def _is_progressing(self) -> bool:
        """Whether to wait on. After the answer has gone out, no code reads what still comes."""
        if self._is_idle():
            return False
        enough = self._arrived_bytes >= self.min_receive_bytes_per_s * self.receive_timeout_s
        return enough or self.flow.read_paused  # paused by us: the server does not read

    def _is_idle(self) -> bool:
        """Whether no request is open."""
        return self.cycle is None or self.cycle.response_complete

    def _may_refuse_body(self) -> bool:
        """Whether a request whose body still comes is the only open one, and nothing of its answer has gone out."""
        return not self.cycle.response_started and not self.pipeline

    def _refuse_http2(self) -> None:
        """End an HTTP/2 connection as RFC 9113 has it: SETTINGS, then GOAWAY with the code HTTP_1_1_REQUIRED."""
        reason = b"HTTP/2 needs a proxy in front of Sonde: have the client speak HTTP/1.1"
        payload = bytes(4) + _HTTP_1_1_REQUIRED.to_bytes(4) + reason
        self.transport.write(_frame(_SETTINGS, b"") + _frame(_GOAWAY, payload))
        self.transport.close()

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer with an error, unless this request has an answer or another comes first, and close."""
        if self._may_refuse_body() if self._in_body else self._is_idle():
            answer = envelope(status, message, code=code)
            head = [*answer.raw_headers, (b"connection", b"close")]
            lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % pair for pair in head), b"\r\n", bytes(answer.body)]
            self.transport.write(b"".join(lines))
        self.transport.close()


def _frame(kind: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 on stream 0, without flags."""
    return len(payload).to_bytes(3) + bytes([kind, 0]) + bytes(4) + payload
