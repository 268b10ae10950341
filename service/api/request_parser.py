"""An HTTP/1.1 parser that ignores `Upgrade`, as RFC 9110 (7.8) lets a server do."""

from __future__ import annotations

from array import array
from typing import Protocol

import httptools


class Listener(Protocol):
    """The protocol that the parser calls back; it holds what came of the request's head."""

    url: bytes
    headers: list[tuple[bytes, bytes]]


class RequestParser(httptools.HttpRequestParser):
    """httptools' parser, which reads the body of a request that asks for an upgrade.

    httptools ends such a request with its head, so that its body would be the next request. This parser then starts
    anew with the same head, without the upgrade. `is_provisional` is true for the callbacks that come before.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self._listener = listener
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
        self.__init__(self._listener)  # type: ignore[misc]  # how httptools resets a parser
        super().feed_data(head)

    def _head_without_upgrade(self) -> bytes:
        """The head that came; httptools lets no line break into a value."""
        lines = [b"%b %b HTTP/%b" % (self.get_method(), self._listener.url, self.get_http_version().encode())]
        for name, value in self._listener.headers:
            if name == b"connection":
                value = b",".join(option for option in value.split(b",") if option.strip().lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])
