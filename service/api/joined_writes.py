"""A transport that joins writes, so that head and body of an answer take one call of the system."""

from __future__ import annotations

import asyncio
from typing import Any


class JoinedWrites(asyncio.Transport):
    """Sends what was written at `flush`, or at the next turn of the event loop.

    uvicorn writes head and body separately.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes | bytearray | memoryview[Any]] = []

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """See asyncio.Transport."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Send what was written since the last time, unless the connection is gone."""
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.writelines(parts)

    def close(self) -> None:
        """See asyncio.Transport."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio.Transport."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """See asyncio.Transport."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio.Transport."""
        self._transport.resume_reading()
