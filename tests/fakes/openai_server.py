"""A tiny server with OpenAI's embeddings route that can be slow, stall once, fail, or close connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import orjson

from service.bench.client import Target


class FakeServer:
    """Records requests; `behave(number)` gives the seconds to wait and the status of the answer to each."""

    def __init__(
        self, behave: Callable[[int], tuple[float, int]] = lambda number: (0.0, 200), *, chunked: bool = False
    ) -> None:
        self.bodies: list[dict[str, object]] = []
        self.heads: list[bytes] = []
        self._behave = behave
        self._chunked = chunked
        self.port = 0
        self.ended = asyncio.Event()
        self.open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def target(self) -> Target:
        return Target.of(self.url)

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until a status of 0, which hangs up."""
        self.open += 1
        while head := await self._head(reader):
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")
            )
            body = orjson.loads(await reader.readexactly(length))
            self.heads.append(head)
            self.bodies.append(body)
            wait, status = self._behave(len(self.bodies) - 1)
            if await self._ended_within(wait) or status == 0:
                break
            writer.write(self._answer(status, body))
        writer.close()
        with suppress(ConnectionError):  # the caller has hung up
            await writer.wait_closed()
        self.open -= 1

    async def _ended_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self.ended.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    def _answer(self, status: int, body: dict[str, object]) -> bytes:
        texts = body["input"]
        count = len(texts) if isinstance(texts, list) else 1
        content = orjson.dumps(
            {"data": [{"embedding": [0.5]} for _ in range(count)]} if status == 200 else {"error": "no"}
        )
        if self._chunked:
            half = len(content) // 2
            pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (content[:half], content[half:]))
            return b"HTTP/1.1 %d X\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (status, pieces)
        return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content)


@asynccontextmanager
async def faking(server: FakeServer) -> AsyncIterator[FakeServer]:
    """Let it listen on a free port of this event loop."""
    listener = await asyncio.start_server(server.serve_one, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        server.ended.set()
        while server.open:
            await asyncio.sleep(0.001)


@contextmanager
def listening(server: FakeServer) -> Iterator[str]:
    """Let it listen in a thread, for what has an event loop of its own; its URL."""
    ready, stop = threading.Event(), threading.Event()

    async def main() -> None:
        async with faking(server):
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield server.url
    finally:
        stop.set()
        thread.join(60)
