"""The Open Inference Protocol over gRPC. Its libraries come with the extra `sonde[grpc]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.config import Settings
from service.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.rpc.server import RpcServer


def open_rpc(app: FastAPI, settings: Settings, *, shared: bool) -> RpcServer | None:
    """The gRPC server beside an application; None where the settings have no port for it.

    Several processes share the port where it is `shared`. Raises ConfigError without the extra's libraries.
    """
    if not settings.grpc_port:
        return None
    try:
        import grpc_health.v1.health_pb2  # noqa: F401
        import grpc_reflection.v1alpha.reflection  # noqa: F401
    except ImportError as error:
        raise ConfigError("--grpc-port needs gRPC: pip install 'sonde[grpc]'", param="grpc_port") from error
    from service.rpc.server import RpcServer

    return RpcServer(app, settings, shared=shared)
