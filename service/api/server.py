"""The HTTP server: uvicorn, which on shutdown answers the requests it has."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import uvicorn
from fastapi import FastAPI

from models.metadata import ModelMetadata
from service.api.http_protocol import TimeoutProtocol
from service.config import Settings
from service.errors import ConfigError
from service.processes.server_process import ServerProcess
from service.processes.sockets import BACKLOG
from service.serving.model_manager import ModelManager

log = logging.getLogger(__name__)

_POLL_S = 0.05
# Objects that some hundred requests make; nearly all of them are gone by then.
_OBJECTS_BETWEEN_COLLECTIONS = 20_000
# Clients cannot connect to the address that stands for all addresses of a machine.
_LOOPBACK_OF = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class CompanionServer(Protocol):
    """Another server on the same event loop."""

    async def start(self) -> None:
        """Listen. Raises CannotListen."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, and end those that are not answered within `grace_s`."""
        ...


class Server(uvicorn.Server):
    """A server that drains on SIGTERM or SIGINT: it answers open requests, then ends.

    It is not ready from the signal on. A second signal ends it immediately. `exit_code` is 0 after a signal and 1
    when a model or the device failed.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        manager: ModelManager,
        announce: Callable[[str, Sequence[ModelMetadata]], None],
        member: ServerProcess | None = None,
        other: CompanionServer | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=_protocol(settings, member),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # uvicorn would believe X-Forwarded-For from loopback, and callers would choose their own address.
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=list(settings.trusted_proxies),
                timeout_keep_alive=75,
                timeout_graceful_shutdown=2,
                backlog=BACKLOG,
            )
        )
        self.exit_code = 0
        self._settings = settings
        self._manager = manager
        self._announce = announce
        self._member = member
        self._other = other
        self._draining: asyncio.Task[None] | None = None

    def fail(self, error: Exception) -> None:
        """End the process with exit code 1, or 2 for wrong settings. Any thread may call it."""
        self.exit_code = 2 if isinstance(error, ConfigError) else 1
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen before models load, so that probes see a service that is alive and not ready.

        One of several processes does not listen: its parent sends it connections, while others are loading to those
        that are ready. The other server's connections come from the kernel, so it listens once models are loaded.
        """
        await super().startup(sockets)
        if self._member is not None:
            self._member.take_connections(self._make_protocol)
        elif self._other is not None:
            await self._other.start()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._open, args=(loop,), name="open-models", daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections."""
        await super().shutdown(sockets)
        if self._other is not None:
            await self._other.stop(0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT; uvicorn would end with their exit codes."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _make_protocol(self) -> asyncio.Protocol:
        """A protocol for one connection, as uvicorn makes it."""
        kind: type[asyncio.Protocol] = self.config.http_protocol_class
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._manager.start_opening().result()
            if self._member is not None and self._other is not None and not self._manager.draining:
                asyncio.run_coroutine_threadsafe(self._other.start(), loop).result()
        except Exception as error:  # the end of the thread: any failure must end the process
            message = getattr(error, "message", None)
            log.critical("models cannot be loaded: %s", message or error, exc_info=None if message else error)
            self.fail(error)
            return
        # PyTorch and the models are a million objects that stay. One traversal of them takes 0.1 s, so they are
        # excluded from garbage collection.
        gc.freeze()
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
        gc.enable()
        if not self._manager.draining:
            self._announce(self._url(), [served.metadata for served in self._manager.all()])

    def _url(self) -> str:
        """An address that a client on this machine can use."""
        port = self.servers[0].sockets[0].getsockname()[1] if self.servers else self._settings.port
        host = _LOOPBACK_OF.get(self._settings.host, self._settings.host)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{port}"

    def _on_signal(self) -> None:
        waiting = len(self.server_state.tasks)
        if self._draining is not None:
            log.warning("ended at once: %d requests get no answer", waiting)
            self.force_exit = self.should_exit = True
            return
        self._manager.draining = True
        if self._member is not None:
            self._member.send_state("draining")
            log.info("draining: answering %d open requests", waiting)
        else:
            log.info("draining: answering %d open requests, Ctrl-C again ends at once", waiting)
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Wait up to `shutdown_s` for open requests, then let uvicorn close.

        Later requests get 503.
        """
        other = asyncio.create_task(self._other.stop(self._settings.shutdown_s)) if self._other is not None else None
        deadline = asyncio.get_running_loop().time() + self._settings.shutdown_s
        waiting = set(self.server_state.tasks)
        while (waiting := waiting & self.server_state.tasks) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_S)
        if waiting:
            log.warning(
                "%d requests were not answered within %g s and get 503", len(waiting), self._settings.shutdown_s
            )
            await asyncio.to_thread(self._manager.stop)
        if other is not None:
            await other
        self.should_exit = True


def _protocol(settings: Settings, member: ServerProcess | None) -> type[TimeoutProtocol]:
    """The protocol with the timeouts of the settings."""
    attributes: dict[str, Any] = {
        "receive_timeout_s": settings.receive_timeout_s,
        "min_receive_bytes_per_s": settings.min_receive_bytes_per_s,
    }
    if member is not None:
        attributes["on_closed"] = staticmethod(member.closed)
    return type("Protocol", (TimeoutProtocol,), attributes)


def serve(server: Server, manager: ModelManager, sockets: list[socket.socket]) -> int:
    """Run until a signal or a failure; return the exit code."""
    try:
        server.run(sockets)
    finally:
        manager.close()
    return server.exit_code
