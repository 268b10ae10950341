"""A small HTTP load generator: keep-alive connections, one request at a time on each, raw asyncio for little overhead."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson


@dataclass(slots=True)
class Result:
    """What one run saw: seconds per good answer, statuses, and how long it all took."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def per_s(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float:
        """Seconds below which so many per cent of the good answers lie."""
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


class Connection:
    """One keep-alive connection to a server."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\ncontent-length: "
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Send a body; status and body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=2**26)
        reader, writer = self._streams
        writer.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return int(head[9:12]), await reader.readexactly(length)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def embeddings(texts: list[str], **more: object) -> bytes:
    """The body of an embeddings request."""
    return orjson.dumps({"model": "all-MiniLM-L6-v2", "input": texts if len(texts) > 1 else texts[0], **more})


async def closed_loop(url: str, bodies: Iterator[bytes], *, clients: int, seconds: float, path: str = "/v1/embeddings") -> Result:
    """So many clients, each sending its next request when the last is answered, for so many seconds."""
    result = Result()
    began = time.perf_counter()

    async def client() -> None:
        connection = Connection(url, path)
        while time.perf_counter() - began < seconds:
            await _timed(connection, next(bodies), result)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    result.seconds = time.perf_counter() - began
    return result


async def open_loop(url: str, bodies: Iterator[bytes], *, per_s: float, count: int, connections: int = 256) -> Result:
    """`count` requests at fixed times, whether or not earlier ones are answered; latency counts from the intended time."""
    result = Result()
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(Connection(url, "/v1/embeddings"))
    began = time.perf_counter()

    async def one(due: float, body: bytes) -> None:
        connection = await free.get()
        await _timed(connection, body, result, due)
        free.put_nowait(connection)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = began + number / per_s
            await _sleep_until(due)
            group.create_task(one(due, next(bodies)))
    result.seconds = time.perf_counter() - began
    while not free.empty():
        free.get_nowait().close()
    return result


async def _timed(connection: Connection, body: bytes, result: Result, began: float | None = None) -> None:
    start = began if began is not None else time.perf_counter()
    try:
        status, _ = await connection.post(body)
    except (ConnectionError, asyncio.IncompleteReadError):
        connection.close()
        status = 0
    result.statuses[status] += 1
    if status == 200:
        result.latencies.append(time.perf_counter() - start)


async def _sleep_until(due: float) -> None:
    if (wait := due - time.perf_counter()) > 0:
        await asyncio.sleep(wait)


def run(work: Callable[[], Awaitable[Result]]) -> Result:
    """Run one measurement to its end."""

    async def main() -> Result:
        return await work()

    return asyncio.run(main())
