"""A server process without a model: answers connections with its number.

`python -m tests.support.numbered_server SPEC [WAY]`
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time

from service.processes.server_process import ProcessSpec, ServerProcess

_CODES = {"wrong": 2, "broken": 1}


class Number(asyncio.Protocol):
    def __init__(self, process: ServerProcess) -> None:
        self.process = process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(f"{self.process.number}\n".encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.process.closed()


async def serve(process: ServerProcess, way: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, (lambda: None) if way == "deaf" else ended.set)
    process.take_connections(lambda: Number(process))
    if way != "loading":
        process.send_state("ready", json.dumps(f"all ready,\nsays {process.number}"))
    await ended.wait()
    process.send_state("draining")


def main(spec: str, way: str = "") -> int:
    """Serve until SIGTERM, or end at once in a wrong way."""
    if way in _CODES:
        return _CODES[way]
    if way == "killed":
        signal.raise_signal(signal.SIGKILL)
        time.sleep(60)
    asyncio.run(serve(ServerProcess(ProcessSpec.load(spec)), way))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
