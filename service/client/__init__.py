"""A typed Python client of a running service, blocking and asynchronous. It needs no PyTorch."""

from service.client.async_client import AsyncClient, AsyncStream
from service.client.client import Client, Stream
from service.client.errors import (
    BadInput,
    ClientError,
    NotFound,
    Refused,
    TryLater,
    Unauthorized,
    UnexpectedAnswer,
    Unreachable,
)

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "BadInput",
    "Client",
    "ClientError",
    "NotFound",
    "Refused",
    "Stream",
    "TryLater",
    "Unauthorized",
    "UnexpectedAnswer",
    "Unreachable",
]
