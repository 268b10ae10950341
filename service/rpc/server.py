"""The gRPC server: the protocol's service, health and reflection, on the event loop of the HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from fastapi import FastAPI
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.config import Settings
from service.errors import CannotListen
from service.inference_messages import POOL, SERVICE, message
from service.rpc.calls import Calls
from service.rpc.methods import METHODS
from service.serving.model_manager import ModelManager

_POLL_S = 0.5
# Load balancers watch with one call each.
_MOST_WATCHING = 100
# Of one connection at a time.
_MOST_CALLS = 1000
# Clients connect anew at their next call.
_IDLE_MS = 300_000
# A message's names, shapes and parameters, beside the values that `--max-body-bytes` limits.
_AROUND_VALUES = 64 * 1024


class RpcServer:
    """Listens on the settings' gRPC port from `start` to `stop`."""

    def __init__(self, app: FastAPI, settings: Settings, *, shared: bool) -> None:
        self._app = app
        self._settings = settings
        self._shared = shared
        self._server: Any = None
        self._health: _Health | None = None

    async def start(self) -> None:
        """Listen. Raises CannotListen for a port that is taken."""
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", self._settings.max_body_bytes + _AROUND_VALUES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", int(self._shared)),
                ("grpc.max_concurrent_streams", _MOST_CALLS),
                ("grpc.max_connection_idle_ms", _IDLE_MS),
                ("grpc.server_handshake_timeout_ms", int(1000 * self._settings.receive_timeout_s)),
            )
        )
        calls = Calls(self._app)
        handlers = {
            method.name: grpc.stream_unary_rpc_method_handler(
                calls.handler(method),  # of a stream, whose one message is read once its caller is known
                response_serializer=message(f"{method.name}Response").SerializeToString,
            )
            for method in METHODS
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self._health = _Health(self._app.state.manager)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        POOL.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection(names, server, pool=POOL)
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        try:
            server.add_insecure_port(f"{host}:{self._settings.grpc_port}")
        except RuntimeError as error:
            about = f"--grpc-port: {self._settings.grpc_port} on {self._settings.host} cannot be listened on"
            raise CannotListen(f"{about}: it is taken, or the address is not this machine's") from error
        await server.start()
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and cancel those that are not answered within `grace_s`."""
        if self._server is not None and self._health is not None:
            self._health.stop()
            await self._server.stop(grace_s)


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # untyped
    """grpc.health.v1, by which Kubernetes and load balancers ask for the readiness.

    It needs no key, so the number of those that watch it is limited. They are told when the server stops.
    """

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager
        self._watching = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End the calls that watch."""
        self._stopping.set()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # the protocol's name
        """Whether the service takes requests."""
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:80]!r}; there is: {SERVICE}")
        return self._status()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  # the protocol's name
        """The same at each change, until the server stops."""
        if self._watching >= _MOST_WATCHING:
            about = f"{_MOST_WATCHING} calls watch already: call Check from time to time"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, about)
        self._watching += 1
        try:
            sent = None
            while not self._stopping.is_set():
                now = self._status() if request.service in ("", SERVICE) else _response("SERVICE_UNKNOWN")
                if now != sent:
                    yield now
                    sent = now
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _POLL_S)
            yield self._status()
        finally:
            self._watching -= 1

    def _status(self) -> Any:
        serves = self._manager.problem is None and not self._stopping.is_set()
        return _response("SERVING" if serves else "NOT_SERVING")


def _response(status: str) -> Any:
    return health_pb2.HealthCheckResponse(status=status)
