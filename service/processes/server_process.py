"""This process as one of several servers: its share of limits, and its channel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from models.base import ModelMetadata
from models.runtime import cpu
from service.config import Settings
from service.metrics import Metrics
from service.processes.metrics_pages import MetricsAggregator, MetricsPage

State = Literal["listening", "ready", "draining", "closed"]


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What the supervisor tells a server process, which is number `number` of `of`.

    `processors` is None where there are fewer cores than processes.
    """

    number: int
    of: int
    channel: int
    pages_directory: str
    processors: list[int] | None

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

    @property
    def number(self) -> int:
        """Which of the processes it is, from 0."""
        return self._spec.number

    def take_share(self, settings: Settings) -> Settings:
        """Pin this process to its cores, before PyTorch loads; return its share of the limits."""
        share = settings.share(self._spec.of)
        if self._spec.processors is not None:
            cpu.pin_to(self._spec.processors)
            quota = cpu.quota()
            return share.within(quota and quota / self._spec.of, len(self._spec.processors))
        single = {name: 1 for name in ("threads", "tokenizer_threads") if not getattr(settings, name)}
        return share.model_copy(update=single)

    def publish(self, metrics: Metrics) -> None:
        """Keep this process's metrics page, and render the sum of all processes."""
        directory = Path(self._spec.pages_directory)
        self._page = MetricsPage(directory, str(self._spec.number), metrics.registry)
        metrics.shown = MetricsAggregator(directory)

    def take_connections(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Serve connections from the channel from now on. For the event loop's thread."""
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._receive_connection, make_protocol)
        self.tell("listening")

    def announcing(
        self, greeting: Callable[[str, Sequence[ModelMetadata]], str]
    ) -> Callable[[str, Sequence[ModelMetadata]], None]:
        """A callback for loaded models; the supervisor prints the greeting when all are ready."""
        return lambda url, models: self.tell("ready", json.dumps(greeting(url, models)))

    def closed(self) -> None:
        """Report that a connection has closed."""
        self.tell("closed")

    def tell(self, state: State, more: str = "") -> None:
        """Send a state to the supervisor."""
        with contextlib.suppress(ConnectionError):  # the supervisor is dead, and this process ends with it
            self._channel.sendall(f"{state} {more}".rstrip().encode() + b"\n")

    def close(self) -> None:
        """Close the channel and write the metrics page for the last time."""
        self._channel.close()
        if self._page is not None:
            self._page.close()

    def _receive_connection(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        try:
            received, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not received:  # the supervisor is gone
            loop.remove_reader(self._channel.fileno())
        for descriptor in descriptors:
            task = loop.create_task(self._accept(socket.socket(fileno=descriptor), make_protocol))
            self._accepting.add(task)  # the loop itself holds tasks by weak references only
            task.add_done_callback(self._accepting.discard)

    async def _accept(self, connection: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(make_protocol, connection)
        except OSError:  # the caller has hung up
            connection.close()
            self.closed()
