"""A server process as the supervisor sees it: process, channel, reported state."""

from __future__ import annotations

import socket

from service.processes.process_start import ModuleCommand, ProcessStart, RunningProcess
from service.processes.server_process import CALLER, ENGINE

_RESTART_AFTER_S = 1.0
_MAX_RESTART_AFTER_S = 30.0
# A process that lived this long did not die of how it was started.
_LIVED_S = 60.0


class ProcessHandle:
    """A slot for a process; after an end, another starts at `restart_at` (monotonic seconds).

    `listens` says whether the process takes connections; `greeting` is what it reported when it was ready, as JSON.
    `wants_engine`: it is a front without a connection to the engine.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.running: RunningProcess | None = None
        self.channel: socket.socket | None = None
        self.listens = self.wants_engine = False
        self.state = "starting"
        self.connections = 0
        self.connections_sent = 0
        self.greeting = ""
        self.restart_at = float("-inf")
        self._started_at = float("-inf")
        self._failures = 0
        self._partial_line = b""

    def start(self, command: ModuleCommand, start: ProcessStart, now: float) -> socket.socket:
        """Start a process that has one end of the channel; return the other end.

        The process has its own session, so that Ctrl-C reaches it once, and it dies with its parent.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.channel, self.state, self.connections = ours, "starting", 0
        self._partial_line, self._started_at = b"", now
        with theirs:
            self.running = start.start(command, theirs.fileno())
        return ours

    def schedule_restart(self, now: float) -> float:
        """Schedule the next start; return the delay in seconds, which doubles at each failure."""
        self._failures = 1 if now - self._started_at > _LIVED_S else self._failures + 1
        delay_s = min(_RESTART_AFTER_S * 2.0 ** (self._failures - 1), _MAX_RESTART_AFTER_S)
        self.restart_at = now + delay_s
        return delay_s

    def send_connection(self, connection: socket.socket) -> bool:
        """Hand a caller's connection over; False when the process cannot take it."""
        if not self._send(CALLER, connection):
            return False
        self.connections += 1
        self.connections_sent += 1
        return True

    def connect_to(self, engine: ProcessHandle) -> None:
        """Connect a front to the engine, by a pair of sockets that have no name."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.wants_engine = not (engine.send_connection(theirs) and self._send(ENGINE, ours))

    def read_messages(self) -> bool:
        """Apply the messages on the channel; False when the process has closed it."""
        if self.channel is None:
            return False
        try:
            received = self.channel.recv(65536)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        *lines, self._partial_line = (self._partial_line + received).split(b"\n")
        for line in lines:
            self._apply_message(*line.decode().partition(" ")[::2])
        return bool(received)

    def close_channel(self) -> None:
        """Send it no more connections and read no more messages."""
        self.listens = self.wants_engine = False
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()

    def _send(self, kind: bytes, connection: socket.socket) -> bool:
        if self.channel is None:
            return False
        try:
            socket.send_fds(self.channel, [kind], [connection.fileno()])
        except OSError:  # it has died, or hangs with its channel full
            return False
        return True

    def _apply_message(self, word: str, more: str) -> None:
        if word == "closed":
            self.connections -= 1
        elif word == "listening":
            self.listens = True
        elif word == "connect":
            self.wants_engine = True
        else:
            self.state, self.greeting = word, more or self.greeting
