"""The sockets that the service listens on, for whoever hands their connections on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from service.errors import CannotListen

_BACKLOG = 4096


@contextlib.contextmanager
def listen_on(host: str, port: int) -> Iterator[list[socket.socket]]:
    """A socket that listens on each address of `host`, all on one port; 0 takes a free one. Raises CannotListen."""
    with contextlib.ExitStack() as stack:
        doors: list[socket.socket] = []
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in dict.fromkeys(found):
                door = stack.enter_context(socket.socket(family, kind, protocol))
                door.setblocking(False)
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                door.bind((address[0], port or (doors[0].getsockname()[1] if doors else 0), *address[2:]))
                door.listen(_BACKLOG)
                doors.append(door)
        except OSError as error:
            raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        yield doors
