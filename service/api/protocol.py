"""A connection's side of HTTP: uvicorn's protocol with limits on slow and on endless senders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.error_responses import envelope

log = logging.getLogger(__name__)

# Of a request's line and headers; as much may come with each part of a body.
MOST_HEAD_BYTES = 64 * 2**10


class TimeoutProtocol(HttpToolsProtocol):
    """uvicorn's protocol, closing connections whose request does not come, or whose head does not end; uvicorn
    itself would wait and read for ever.

    A request has `receive_timeout_s` to be there. One that is not, and whose body comes at `min_receive_bytes_per_s`
    or more on average, has as long again, and so on: a large upload may take its time, a slow one may not.
    """

    receive_timeout_s = 15.0
    min_receive_bytes_per_s = 4096
    on_closed: Callable[[], None] | None = None
    _patience: asyncio.TimerHandle | None = None
    _arrived_bytes = 0
    _head_bytes = 0
    _gets_somewhere = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Expect a first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on, unless it is ever more of a head, or of what may stand after a body."""
        self._gets_somewhere = False
        super().data_received(data)
        self._head_bytes = 0 if self._gets_somewhere else self._head_bytes + len(data)
        if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the request's head may have {MOST_HEAD_BYTES} bytes", "head_too_large")
        if self._is_idle() and self.timeout_keep_alive_task is None:  # which was for a request, and this is none yet
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as all errors are answered."""
        self._refuse(400, "the request is not HTTP/1.1", "malformed_request")

    def on_message_begin(self) -> None:
        """Expect the rest of this one."""
        super().on_message_begin()
        self._gets_somewhere = True
        self._arrived_bytes = 0
        self._wait()

    def on_body(self, body: bytes) -> None:
        """Count what arrives."""
        self._gets_somewhere = True
        self._arrived_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Nothing more to expect; between requests the keep-alive timeout holds."""
        self._stop_waiting()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer, and say so to whoever counts connections."""
        self._stop_waiting()
        super().connection_lost(exc)
        if self.on_closed is not None:
            self.on_closed()

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.receive_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self._is_progressing():
            self._arrived_bytes = 0
            self._wait()
        elif self.transport and not self.transport.is_closing():
            log.info("closed a connection whose request did not come within %g s", self.receive_timeout_s)
            self.transport.close()

    def _is_progressing(self) -> bool:
        """Whether there is reason to wait on. What is sent after the answer has gone out is nobody's to read."""
        if self._is_idle():
            return False
        enough = self._arrived_bytes >= self.min_receive_bytes_per_s * self.receive_timeout_s
        return enough or self.flow.read_paused  # it is we who do not read

    def _is_idle(self) -> bool:
        """Whether nothing is asked, or all is answered."""
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer what has not become a request, if nothing else is being answered, and close."""
        if self._is_idle():
            answer = envelope(status, message, code=code)
            head = [*answer.raw_headers, (b"connection", b"close")]
            lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % pair for pair in head), b"\r\n", bytes(answer.body)]
            self.transport.write(b"".join(lines))
        self.transport.close()
