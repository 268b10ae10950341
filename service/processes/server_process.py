"""This process as one of several servers: its share of limits, and its channel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from threadpoolctl import threadpool_limits

from models.metadata import ModelMetadata
from models.runtime import cpu
from service.config import Settings
from service.metrics import Metrics
from service.processes.metrics_pages import MetricsAggregator, MetricsPage

State = Literal["listening", "ready", "draining", "closed", "connect"]
# A process that does everything, one that speaks HTTP, or the one that computes for these.
Role = Literal["server", "front", "engine"]
# What comes with a descriptor: a caller's connection, or one to the engine.
CALLER, ENGINE = b".", b"e"


_COMM = Path("/proc/self/comm")


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What the supervisor tells a server process, which is number `number` of `of`.

    `processors` is None where the process is bound to none.
    """

    number: int
    of: int
    channel: int
    pages_directory: str
    processors: list[int] | None
    role: Role = "server"

    def dump(self) -> str:
        """Encode as an argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> ProcessSpec:
        """Decode what `dump` encoded."""
        return cls(**json.loads(text))


class ServerProcess:
    """One of several server processes, from the inside."""

    def __init__(self, spec: ProcessSpec) -> None:
        self._spec = spec
        self._channel = socket.socket(fileno=spec.channel)
        self._channel.setblocking(True)
        self._page: MetricsPage | None = None
        self._accepting: set[asyncio.Task[None]] = set()
        self._parent = os.getppid()
        # Makes the protocol of a front's connections to the engine.
        self.link: Callable[[], asyncio.Protocol] | None = None

    @property
    def role(self) -> Role:
        return self._spec.role

    @property
    def name(self) -> str:
        """The name of its metrics page and of its log lines."""
        return "engine" if self.role == "engine" else str(self.number)

    def show_name(self) -> None:
        """Name this process for `ps` and `top`, where the system can: a fork has the command line of its original."""
        with contextlib.suppress(OSError):  # there is no such file, or a sandbox lets no process write it
            _COMM.write_text("sonde-engine" if self.role == "engine" else f"sonde-{self.role}-{self.number}")

    @property
    def has_parent(self) -> bool:
        """Whether the supervisor lives."""
        return os.getppid() == self._parent

    @property
    def number(self) -> int:
        """Which of the processes it is, from 0."""
        return self._spec.number

    def take_share(self, settings: Settings) -> Settings:
        """Pin this process to its cores, before it starts threads; return its share of the limits."""
        if self.role == "engine":
            return settings.within(cpu.quota(), len(cpu.usable_processors()))
        if self.role == "front":
            # The engine process has the cache of rows and the cores; a front caches fitted sets.
            threads = max(cpu.count_cores() // self._spec.of, 1)
            cache_mb = math.ceil(settings.cache_mb / self._spec.of)
            tokenizers = settings.tokenizer_threads or min(threads, 4)
            update = {"threads": 1, "runners": 1, "tokenizer_threads": tokenizers, "cache_mb": cache_mb}
            return settings.model_copy(update=update)
        share = settings.share(self._spec.of)
        if self._spec.processors is not None:
            cpu.pin_to(self._spec.processors)
            quota = cpu.quota()
            share = share.within(quota and quota / self._spec.of, len(self._spec.processors))
            # PyTorch and OpenBLAS were imported before, and have counted the processors of all.
            threads = share.threads or len(set(map(cpu.core_of, self._spec.processors)))
            threadpool_limits(threads, user_api="blas")
            return share.model_copy(update={"threads": threads})
        single = {name: 1 for name in ("threads", "tokenizer_threads") if not getattr(settings, name)}
        return share.model_copy(update=single)

    def publish(self, metrics: Metrics) -> None:
        """Keep this process's metrics page, and render the sum of all processes."""
        directory = Path(self._spec.pages_directory)
        self._page = MetricsPage(directory, self.name, metrics.registry)
        metrics.shown = MetricsAggregator(directory)

    def take_connections(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Serve connections from the channel from now on. For the event loop's thread."""
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._receive_connection, make_protocol)
        self.send_state("listening")
        if self.link is not None:
            self.send_state("connect")

    def announcing(
        self, greeting: Callable[[str, Sequence[ModelMetadata]], str]
    ) -> Callable[[str, Sequence[ModelMetadata]], None]:
        """A callback for loaded models; the supervisor prints the greeting when all are ready."""
        return lambda url, models: self.send_state("ready", json.dumps(greeting(url, models)))

    def closed(self) -> None:
        """Report that a connection has closed."""
        self.send_state("closed")

    def send_state(self, state: State, more: str = "") -> None:
        """Send a state to the supervisor."""
        # The supervisor is dead, and this process ends with it; or this process ends while a thread opens models.
        with contextlib.suppress(OSError):
            self._channel.sendall(f"{state} {more}".rstrip().encode() + b"\n")

    def close(self) -> None:
        """Close the channel and write the metrics page for the last time; without a parent, remove all pages."""
        self._channel.close()
        if self._page is not None:
            self._page.close()
            if not self.has_parent:
                shutil.rmtree(self._spec.pages_directory, ignore_errors=True)

    def _receive_connection(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        try:
            received, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:  # the supervisor was killed before it read all states
            received, descriptors = b"", []
        if not received:  # the supervisor is gone
            loop.remove_reader(self._channel.fileno())
        for descriptor in descriptors:
            make = self.link if received == ENGINE and self.link is not None else make_protocol
            task = loop.create_task(self._accept(socket.socket(fileno=descriptor), make))
            self._accepting.add(task)  # the loop itself holds tasks by weak references only
            task.add_done_callback(self._accepting.discard)

    async def _accept(self, connection: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        try:
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(make_protocol, connection)
        except OSError:  # the caller has hung up
            connection.close()
            self.closed()
