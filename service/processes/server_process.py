"""One of several processes of the service: its share of cores and limits, and the channel through which it gets
connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from models.base import ModelMetadata
from models.runtime import cpu
from service.config import Settings
from service.metrics import Metrics
from service.processes.metrics_pages import MetricsAggregator, MetricsPage

Word = Literal["listening", "ready", "draining", "closed"]


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """Which of how many processes one is: what the parent says to it. `processors` is None where there are too few
    cores to divide.
    """

    number: int
    of: int
    channel: int
    board: str
    processors: list[int] | None

    def dump(self) -> str:
        """As an argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> ProcessSpec:
        """The reverse of `dump`."""
        return cls(**json.loads(text))


class ServerProcess:
    """This process as one of several."""

    def __init__(self, place: ProcessSpec) -> None:
        self._place = place
        self._channel = socket.socket(fileno=place.channel)
        self._channel.setblocking(True)
        self._page: MetricsPage | None = None
        self._beginning: set[asyncio.Task[None]] = set()

    @property
    def number(self) -> int:
        """Which of the processes it is, from 0."""
        return self._place.number

    def settle(self, settings: Settings) -> Settings:
        """Keep to the own cores, which has to be before PyTorch is imported; the settings with the own share of what
        is limited.
        """
        if self._place.processors is not None:
            cpu.pin_to(self._place.processors)
            quota = cpu.quota()
            return settings.share(self._place.of).within(quota and quota / self._place.of, len(self._place.processors))
        single = {name: 1 for name in ("threads", "tokenizer_threads") if not getattr(settings, name)}
        return settings.share(self._place.of).model_copy(update=single)

    def publish(self, metrics: Metrics) -> None:
        """Keep this process's page of metrics, and have all processes' sum rendered."""
        board = Path(self._place.board)
        self._page = MetricsPage(board, str(self._place.number), metrics.registry)
        metrics.shown = MetricsAggregator(board)

    def take_connections(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Serve the connections that come through the channel, from now on. For the event loop's thread."""
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._take, make_protocol)
        self.tell("listening")

    def announcing(self, greeting: Callable[[str, ModelMetadata], str]) -> Callable[[str, ModelMetadata], None]:
        """What is to be called when models are loaded: the parent says the greeting to the world when all are ready."""
        return lambda url, card: self.tell("ready", greeting(url, card))

    def closed(self) -> None:
        """A connection is gone."""
        self.tell("closed")

    def tell(self, word: Word, more: str = "") -> None:
        """Say something to the parent."""
        with contextlib.suppress(ConnectionError):  # it is dead, and the leash ends this process
            self._channel.sendall(f"{word} {more}".rstrip().encode() + b"\n")

    def close(self) -> None:
        """Hang up, and leave the counts behind."""
        self._channel.close()
        if self._page is not None:
            self._page.close()

    def _take(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        try:
            said, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not said:  # the parent is gone
            loop.remove_reader(self._channel.fileno())
        for descriptor in descriptors:
            beginning = loop.create_task(self._serve(socket.socket(fileno=descriptor), make_protocol))
            self._beginning.add(beginning)  # a loop itself holds its tasks but weakly
            beginning.add_done_callback(self._beginning.discard)

    async def _serve(self, connection: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(make_protocol, connection)
        except OSError:  # whoever it was has hung up
            connection.close()
            self.closed()
