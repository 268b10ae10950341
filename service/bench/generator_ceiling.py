"""The ceiling of the generator: the same requests against a server that does nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import orjson
from httptools import HttpRequestParser

from models.interpreter import RUN_MODULE
from service.bench.client import Target
from service.bench.load import closed_loop, drive
from service.bench.summary import Summary
from service.bench.workload import PreparedRequest
from service.errors import TargetError

_WIDTH = 384
_WARMUP_S = 0.5


class TrivialServer(asyncio.Protocol):
    """A server that answers every request with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Create the connection's parser."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser = HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Parse bytes of a request."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answer a complete request (httptools calls this)."""
        self._transport.write(self._answer)


def prepared_response(inputs: int) -> bytes:
    """A response with `inputs` embeddings as on the wire, with about 20 digits per number."""
    row = [0.012345678901234567] * _WIDTH
    body = orjson.dumps(
        {"object": "list", "data": [{"object": "embedding", "index": i, "embedding": row} for i in range(inputs)]}
    )
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def listen(answer: bytes, port: int = 0) -> asyncio.Server:
    """Start the trivial server on loopback."""
    return await asyncio.get_running_loop().create_server(lambda: TrivialServer(answer), "127.0.0.1", port)


@contextmanager
def trivial_server(inputs: int) -> Iterator[str]:
    """Run the trivial server in a process of its own; yield its URL."""
    command = [*RUN_MODULE, "service.bench.generator_ceiling", str(inputs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own module
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise TargetError("the trivial server did not start")
            yield line.strip()
        finally:
            process.terminate()


async def ceiling(url: str, requests: Iterator[PreparedRequest], *, clients: int, seconds: float) -> Summary:
    """Measure closed load on the trivial server."""
    done = await closed_loop(Target.of(url), requests, clients=clients, seconds=seconds + _WARMUP_S)
    return Summary.of(done, warmup_s=_WARMUP_S, until_s=seconds + _WARMUP_S, slo_ms=100)


async def _main(inputs: int) -> None:
    server = await listen(prepared_response(inputs))
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # the parent reads it
    await server.serve_forever()


if __name__ == "__main__":
    drive(_main(int(sys.argv[1])))
