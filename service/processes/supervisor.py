"""The parent of several processes of the service: it listens, hands connections to them, and sees that they run."""

from __future__ import annotations

import logging
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from models.runtime import cpu
from service.config import Settings
from service.metrics import PROCESS_STATES, SupervisorMetrics, listen
from service.processes.metrics_pages import MetricsAggregator, MetricsPage
from service.processes.process_handle import ProcessHandle
from service.processes.server_process import ProcessSpec
from service.processes.signals import on_signals
from service.processes.sockets import open_sockets

log = logging.getLogger(__name__)

_POLL_S = 0.1
_MARGIN_S = 5.0
# Who is asked first to take a connection.
_RANK = {"ready": 0, "starting": 1, "draining": 2}
# The command of the process with a number, given the descriptor of its channel.
Command = Callable[[int], Callable[[int], Sequence[str]]]


class Supervisor:
    """Connections go to the process that has the fewest, to those that are ready first. It ends when all have ended
    after `stop`.

    A process that ends is started again, once all have been ready; before that it ends all, with its exit code.
    """

    def __init__(
        self,
        command: Command,
        of: int,
        sockets: Sequence[socket.socket],
        metrics: SupervisorMetrics,
        *,
        shutdown_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._processes = [ProcessHandle(number) for number in range(of)]
        self._sockets = sockets
        self._open = False
        self._metrics = metrics
        self._shutdown_s = shutdown_s
        self._clock = clock
        self._announced = False
        self._asked_to_stop = self._stopping = 0
        self._deadline = float("inf")
        self._code = 0
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Until all have ended; the exit code."""
        try:
            while not self._stopping or any(process.running for process in self._processes):
                self._look_after()
                self._report()
                self._hear()
        finally:
            self._kill_all()
            self._selector.close()
        return self._code

    def stop(self) -> None:
        """Have all answer those inside and end; a second time, end now. May be called from any thread."""
        self._asked_to_stop += 1

    def by_preference(self) -> list[ProcessHandle]:
        """Who is to get the next connection; the others in case that it cannot."""
        able = [process for process in self._processes if process.listens]
        return sorted(able, key=lambda process: (_RANK[process.state], process.connections, process.given))

    # --- three verbs
    # ----------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Take leave of what has ended, start what is due, end what must."""
        for process in self._processes:
            if process.running is not None and (code := process.running.poll()) is not None:
                self._take_leave(process, code)
            if process.running is None and not self._stopping and self._clock() >= process.due:
                self._selector.register(
                    process.start(self._command(process.number), self._clock()), selectors.EVENT_READ, process
                )
        if self._stopping < self._asked_to_stop:
            self._end_all()
        if self._clock() > self._deadline:
            log.warning("processes did not end in time and are killed")
            self._kill_all()

    def _report(self) -> None:
        """Open the door as soon as there is somebody behind it, and tell how all are."""
        if self._open != any(process.listens for process in self._processes):
            self._open = not self._open
            for socket_ in self._sockets:
                self._selector.register(socket_, selectors.EVENT_READ) if self._open else self._selector.unregister(
                    socket_
                )
        states = [process.state for process in self._processes if process.running is not None]
        for state in PROCESS_STATES:
            self._metrics.processes.labels(state).set(states.count(state))
        if not self._announced and states.count("ready") == len(self._processes):
            self._announced = True
            print(self._processes[0].line, flush=True)

    def _hear(self) -> None:
        """Wait for connections and for words of the processes, and see to them."""
        for key, _ in self._selector.select(_POLL_S):
            if isinstance(key.data, ProcessHandle):
                if not key.data.hear():
                    self._hang_up(key.data)
            elif isinstance(key.fileobj, socket.socket):
                self._welcome(key.fileobj)

    # --- steps
    # ----------------------------------------------------------------------------------------------------------

    def _welcome(self, socket_: socket.socket) -> None:
        try:
            connection, _ = socket_.accept()
        except (
            OSError
        ) as error:  # hung up while waiting, or no descriptor is left; the latter must not become a busy loop
            log.warning("a connection could not be accepted: %s", error)
            time.sleep(_POLL_S)
            return
        with connection:
            if not any(process.give(connection) for process in self.by_preference()):
                log.warning("no process can take a connection; it is closed")

    def _take_leave(self, process: ProcessHandle, code: int) -> None:
        self._hang_up(process)
        process.running = None
        if self._stopping:
            return
        if not self._announced:
            self._code = code if code >= 0 else 128 - code
            self.stop()
            return
        self._metrics.restarts.inc()
        after = process.put_off(self._clock())
        log.warning("process %d ended with %d and is started again in %g s", process.number, code, after)

    def _end_all(self) -> None:
        if not self._stopping:
            self._deadline = self._clock() + self._shutdown_s + _MARGIN_S
        self._stopping = self._asked_to_stop
        for process in self._processes:
            if process.running is not None:
                process.running.terminate()

    def _kill_all(self) -> None:
        self._deadline = float("inf")
        for process in self._processes:
            process.kill()

    def _hang_up(self, process: ProcessHandle) -> None:
        if process.channel is not None:
            self._selector.unregister(process.channel)
            process.hang_up()


def supervise(settings: Settings, flags: Sequence[str]) -> int:
    """Run `sonde serve` as `settings.workers` processes until SIGTERM or SIGINT; the exit code. `flags` are handed
    to all.

    Raises CannotListen, and ConfigError for a metrics port that cannot be listened on.
    """
    metrics = SupervisorMetrics()
    with (
        tempfile.TemporaryDirectory(prefix="sonde-") as directory,
        open_sockets(settings.host, settings.port) as sockets,
    ):
        page = MetricsPage(Path(directory), "parent", metrics.registry)
        listen(MetricsAggregator(Path(directory)).registry(), settings.host, settings.metrics_port)
        command = _commands(
            settings.workers, [*flags, "--port", str(sockets[0].getsockname()[1]), "--metrics-port", "0"], directory
        )
        running = Supervisor(command, settings.workers, sockets, metrics, shutdown_s=settings.shutdown_s)
        on_signals(running.stop)
        try:
            return running.run()
        finally:
            page.close()


def _commands(of: int, flags: Sequence[str], board: str) -> Command:
    """`sonde serve` as each of so many processes."""
    divided = cpu.divide(cpu.usable_processors(), of)
    if divided is None:
        log.warning("there are more processes than cores: each computes with one thread")

    def command(number: int) -> Callable[[int], Sequence[str]]:
        def on(channel: int) -> Sequence[str]:
            place = ProcessSpec(number, of, channel, board, None if divided is None else divided[number])
            return [sys.executable, "-m", "service.cli", "serve", *flags, "--member", place.dump()]

        return on

    return command
