"""What HTTP costs: requests a second of one core, with a model that computes nothing.

python -m benchmarks.http [--rounds 3] [--seconds 1.5] [--servers sonde,front,fastapi,asgi]

All servers have one core, the generator has another, and they alternate. `sonde` is `sonde serve` with its engine in
the same process, `front` a front whose engine answers at once. Both check keys, count, and write a log line for each
request. `fastapi` and `asgi` do the least: see `benchmarks/http_servers.py`. The rate is by processor time, because
other work on the machine takes the core away.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import orjson

from benchmarks.http_servers import NAME, SERVERS
from benchmarks.processes import free_port
from service.bench.workload import NAMED, Texts

_SERVER_CORE, _GENERATOR_CORE = 0, 1
# A load's name: texts of a request, clients.
LOADS = {"short-1": (1, 32), "short-32": (32, 4)}
_BODIES = {"short-1": 16_384, "short-32": 512}
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready: its port, its key and its process."""

    port: int
    key: str
    pid: int

    def cpu_s(self) -> float:
        """Seconds of processor that its threads have had."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


@dataclass(frozen=True, slots=True)
class Seen:
    """What a load had: answers a second, processor milliseconds for each, and the slowest but 1 %."""

    per_s: float
    cpu_ms: float
    p99_ms: float


@contextmanager
def served(kind: str, *, core: int | None = _SERVER_CORE) -> Iterator[Served]:
    """Start a server, on one core if there is one to choose; its log goes to a file."""
    with tempfile.TemporaryDirectory() as home:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.http_servers", kind, str(port), home]
        with (
            (Path(home) / "log").open("wb") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            try:
                if core is not None:
                    os.sched_setaffinity(process.pid, {core})
                assert process.stdout is not None  # as asked for
                key = process.stdout.readline().strip()
                _wait_for(port)
                yield Served(port, key, process.pid)
            finally:
                process.terminate()


def requests(load: str, key: str, number: int) -> list[bytes]:
    """`number` requests of a load as bytes, all different."""
    texts, count = Texts(NAMED["short"], seed=3), LOADS[load][0]
    made = []
    for _ in range(number):
        taken = [texts.take()[0] for _ in range(count)]
        body = orjson.dumps({"model": NAME, "input": taken if count > 1 else taken[0]})
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        more = f"accept: application/json\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        made.append((head + more).encode() + body)
    return made


def drive(server: Served, contents: Sequence[bytes], clients: int, seconds: float) -> Seen:
    """Have `clients` connections send one request after another; blocking, on raw sockets, to cost little itself."""
    source, latencies = cycle(contents), []
    poll = select.epoll()
    connections: dict[int, _Connection] = {}
    for _ in range(clients):
        connection = _Connection(server.port)
        connections[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
        connection.send(next(source))
    cpu_s, began = server.cpu_s(), time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        for number, _ in poll.poll(1):
            connection = connections[number]
            if connection.receive():
                latencies.append(now - connection.sent)
                connection.send(next(source))
    took, cpu_s = time.perf_counter() - began, server.cpu_s() - cpu_s
    for connection in connections.values():
        connection.socket.close()
    poll.close()
    return Seen(len(latencies) / took, 1000 * cpu_s / len(latencies), 1000 * statistics.quantiles(latencies, n=100)[98])


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0.0
        self._answer = b""

    def send(self, content: bytes) -> None:
        self.sent = time.perf_counter()
        self.socket.sendall(content)

    def receive(self) -> bool:
        """Read what there is; whether the answer is complete. Ends the run if it is an error."""
        self._answer += self.socket.recv(2**20)
        end = self._answer.find(_HEAD_END)
        if end < 0:
            return False
        at = self._answer.index(_LENGTH) + len(_LENGTH)
        if len(self._answer) < end + len(_HEAD_END) + int(self._answer[at : self._answer.index(b"\r", at)]):
            return False
        if not self._answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(self._answer.decode())
        self._answer = b""
        return True


def _wait_for(port: int) -> None:
    for _ in range(1000):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("the server did not listen")


def main() -> None:
    """Print a line for each load and server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--loads", default=",".join(LOADS))
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {_GENERATOR_CORE})
    with ExitStack() as stack:
        servers = {name: stack.enter_context(served(name)) for name in chosen.servers.split(",")}
        for load in chosen.loads.split(","):
            rounds: dict[str, list[Seen]] = {name: [] for name in servers}
            contents = {name: requests(load, server.key, _BODIES[load]) for name, server in servers.items()}
            for name in [*servers, *list(servers) * chosen.rounds]:
                rounds[name].append(drive(servers[name], contents[name], LOADS[load][1], chosen.seconds))
            for name, seen in rounds.items():
                print(f"{load:9} {name:8} {_line(seen[1:])}", flush=True)  # the first one warms up


def _line(seen: Sequence[Seen]) -> str:
    """The least processor time of the rounds, since other work on the machine only adds to it; else medians."""
    cpu_ms = min(one.cpu_ms for one in seen)
    per_s, p99_ms = statistics.median(one.per_s for one in seen), statistics.median(one.p99_ms for one in seen)
    return f"{1000 / cpu_ms:7.0f} requests/s of one core  {cpu_ms:6.3f} ms each  ({per_s:.0f}/s, p99 {p99_ms:.1f} ms)"


if __name__ == "__main__":
    main()
