"""One of the processes as their parent sees it: the process, the channel to it, and what it has said."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Sequence

from service.processes.parent_death import with_parent_death_signal

_RESTART_AFTER_S = 1.0
_MOST_RESTART_AFTER_S = 30.0
# A process that lived so long did not die of how it was started.
_LIVED_S = 60.0


class ProcessHandle:
    """A place that a process fills; when it ends, another one does, from `due` (the clock's seconds) on.

    `listens` is whether it takes connections now, and `line` what it said when it was ready.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.running: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.listens = False
        self.state = "starting"
        self.connections = 0
        self.given = 0
        self.line = ""
        self.due = float("-inf")
        self._begun = float("-inf")
        self._failures = 0
        self._half = b""

    def start(self, command: Callable[[int], Sequence[str]], now: float) -> socket.socket:
        """Start `command(descriptor)`, which gets its end of the channel under that descriptor; the other end.

        In a session of its own, since Ctrl-C would reach it twice, and on a leash, since nobody could end it if its
        parent were killed.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.channel, self.state, self.connections, self._half, self._begun = ours, "starting", 0, b"", now
        with theirs:
            words = with_parent_death_signal(signal.SIGTERM, *command(theirs.fileno()))
            self.running = subprocess.Popen(words, pass_fds=[theirs.fileno()], start_new_session=True)  # noqa: S603
        return ours

    def put_off(self, now: float) -> float:
        """It has ended and is due again after some seconds, which are returned: more of them each time, unless it
        lived long.
        """
        self._failures = 1 if now - self._begun > _LIVED_S else self._failures + 1
        after = min(_RESTART_AFTER_S * 2.0 ** (self._failures - 1), _MOST_RESTART_AFTER_S)
        self.due = now + after
        return after

    def give(self, connection: socket.socket) -> bool:
        """Hand a connection over; False when the process cannot take it."""
        if self.channel is None:
            return False
        try:
            socket.send_fds(self.channel, [b"."], [connection.fileno()])
        except OSError:  # it has died, or hangs with its channel full
            return False
        self.connections += 1
        self.given += 1
        return True

    def hear(self) -> bool:
        """Read what it has said; False when it has hung up."""
        if self.channel is None:
            return False
        try:
            heard = self.channel.recv(65536)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        *lines, self._half = (self._half + heard).split(b"\n")
        for line in lines:
            self._learn(*line.decode().partition(" ")[::2])
        return bool(heard)

    def hang_up(self) -> None:
        """Give it no more connections, and hear no more of it."""
        self.listens = False
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def kill(self) -> None:
        """End it now."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()

    def _learn(self, word: str, more: str) -> None:
        if word == "closed":
            self.connections -= 1
        elif word == "listening":
            self.listens = True
        else:
            self.state, self.line = word, more or self.line
