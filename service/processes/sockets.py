"""Listening sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from service.errors import CannotListen

BACKLOG = 4096


@contextlib.contextmanager
def open_sockets(
    host: str, port: int, *, listening: bool = True, flag: str = "--port"
) -> Iterator[list[socket.socket]]:
    """Bind each address of `host` to one port; 0 is a free one. Connections are refused where no process listens yet.

    Raises CannotListen.
    """
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        try:
            addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in dict.fromkeys(addresses):
                socket_ = stack.enter_context(socket.socket(family, kind, protocol))
                socket_.setblocking(False)
                socket_.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    socket_.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                socket_.bind((address[0], port or (sockets[0].getsockname()[1] if sockets else 0), *address[2:]))
                if listening:
                    socket_.listen(BACKLOG)
                sockets.append(socket_)
        except OSError as error:
            message = f"cannot listen on {host}:{port}: {error.strerror or error}; {flag} takes another"
            raise CannotListen(message, param=flag.removeprefix("--").replace("-", "_")) from error
        yield sockets
