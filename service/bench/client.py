"""A keep-alive connection to the server under test, on a raw transport for speed."""

from __future__ import annotations

import asyncio
import base64
import functools
import ssl
import time
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import SplitResult, urlsplit

import orjson
from httptools import HttpParserError, HttpResponseParser

from service.bench.workload import PreparedRequest
from service.errors import ConfigError, TargetError

TIMEOUT = "timeout"
CONNECTION = "connection"


@dataclass(frozen=True, slots=True)
class BenchResponse:
    """The end of a request: HTTP status, `timeout` or `connection`; when; the body if kept."""

    status: str
    ended: float
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Target:
    """The destination of requests: address, TLS, the head of every request, and whether answers are embeddings."""

    host: str
    port: int
    tls: bool
    head: bytes
    url: str
    sends_embeddings: bool = True

    @classmethod
    def of(
        cls,
        url: str,
        path: str = "/v1/embeddings",
        key: str | None = None,
        *,
        sends_embeddings: bool = True,
        content_type: str = "application/json",
    ) -> Target:
        """Parse a URL and a path. The URL's credentials are for a proxy. Raises ConfigError."""
        parts, name, port = split_url(url)
        host, full = parts.netloc.rpartition("@")[2], parts.path.rstrip("/") + path
        lines = [f"POST {full} HTTP/1.1", f"host: {host}", f"content-type: {content_type}"]
        if key:
            lines.append(f"authorization: Bearer {key}")
        elif parts.username:
            pair = f"{parts.username}:{parts.password or ''}".encode()
            lines.append(f"authorization: Basic {base64.b64encode(pair).decode()}")
        tls = parts.scheme == "https"
        head = "\r\n".join([*lines, "content-length: "]).encode()
        shown = f"{parts.scheme}://{host}{full}"
        return cls(name, port or (443 if tls else 80), tls, head, shown, sends_embeddings)

    def connect(self, *, keep_bodies: bool = False) -> Connection:
        """A connection of its own."""
        return Connection(self, keep_bodies=keep_bodies)

    def count_answers(self, body: bytes) -> int | None:
        """The embeddings of a body; None where the status alone says whether there is an answer."""
        return embeddings(body) if self.sends_embeddings else None


class AnyConnection(Protocol):
    """Sends one request at a time."""

    async def post(self, body: bytes, timeout_s: float, headers: bytes = b"") -> BenchResponse:
        """Send a body and wait for the complete answer."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class AnyTarget(Protocol):
    """A destination, over HTTP or gRPC."""

    @property
    def url(self) -> str:
        """As reports show it."""
        ...

    def connect(self, *, keep_bodies: bool = False) -> AnyConnection:
        """A connection of its own."""
        ...

    def count_answers(self, body: bytes) -> int | None:
        """The inputs that a body answers; None where the status alone says whether there is an answer."""
        ...


class Connection(asyncio.Protocol):
    """Sends one request at a time; connects on demand, and again after a close."""

    def __init__(self, target: Target, *, keep_bodies: bool = False) -> None:
        self._target = target
        self._keep = keep_bodies
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._waiting: asyncio.Future[BenchResponse] | None = None
        self._pieces: list[bytes] = []

    async def post(self, body: bytes, timeout_s: float, headers: bytes = b"") -> BenchResponse:
        """Send a body and wait for the complete answer."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._transport is None:
                    await self._connect()
                return await self._send(body, headers)
        except TimeoutError:
            self.close()
            return BenchResponse(TIMEOUT, time.perf_counter())
        except OSError:
            return BenchResponse(CONNECTION, time.perf_counter())

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _connect(self) -> None:
        context = _certificates() if self._target.tls else None
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, self._target.host, self._target.port, ssl=context)

    def _send(self, body: bytes, headers: bytes) -> asyncio.Future[BenchResponse]:
        self._waiting = asyncio.get_running_loop().create_future()
        self._parser = HttpResponseParser(self)
        self._pieces = []
        if self._transport is None:  # closed between two awaits
            self._end(CONNECTION)
        else:
            self._transport.write(b"%b%d\r\n%b\r\n%b" % (self._target.head, len(body), headers, body))
        return self._waiting

    def _end(self, status: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(BenchResponse(status, time.perf_counter(), b"".join(self._pieces)))

    # asyncio calls these:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to write to."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the answer."""
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self.close()
            self._end(CONNECTION)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request, if there is one: the server has closed the connection."""
        self._transport = None
        self._end(CONNECTION)

    # httptools calls these:

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body, if bodies are kept."""
        if self._keep:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """End the request: the answer is complete."""
        parser = cast(HttpResponseParser, self._parser)
        if not parser.should_keep_alive():
            self.close()
        self._end(str(parser.get_status_code()))


def split_url(url: str) -> tuple[SplitResult, str, int | None]:
    """Split a URL into its parts, host and port, if it has one. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts, parts.hostname, parts.port
    except ValueError:  # an invalid port or bracketed address
        pass
    raise ConfigError(f"--url: expected http://HOST:PORT or https://HOST, got {url!r}")


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates, read once: reading them takes milliseconds."""
    return ssl.create_default_context()


_SHOWN = 300


async def probe(target: AnyTarget, request: PreparedRequest, timeout_s: float) -> None:
    """Send a first request. Raises TargetError unless it is answered, where embeddings are asked for with each."""
    connection = target.connect(keep_bodies=True)
    answer = await connection.post(request.body, timeout_s, request.headers)
    connection.close()
    shown = answer.body[:_SHOWN].decode(errors="replace")
    if answer.status in (TIMEOUT, CONNECTION):
        raise TargetError(
            f"{target.url} did not answer a first request: {answer.status}; is the server up, are --url and --path "
            f"right?"
        )
    if answer.status != "200":
        raise TargetError(f"{target.url} answered a first request with {answer.status}, expected 200: {shown}")
    found = target.count_answers(answer.body)
    if found not in (None, request.inputs):
        raise TargetError(f"{target.url} sent {found} embeddings for {request.inputs} texts, as {shown!r}")


def embeddings(body: bytes) -> int:
    """Count the embeddings of an OpenAI answer; 0 for any other body."""
    try:
        data = orjson.loads(body)["data"]
        return sum(bool(row["embedding"]) for row in data)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 0
