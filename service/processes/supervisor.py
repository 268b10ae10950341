"""The supervisor of server processes: it hands connections over and restarts processes."""

from __future__ import annotations

import json
import logging
import selectors
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from models.runtime import cpu
from service.config import Settings
from service.metrics import PROCESS_STATES, SupervisorMetrics, listen
from service.processes.metrics_pages import MetricsAggregator, MetricsPage
from service.processes.process_handle import ProcessHandle
from service.processes.process_start import ModuleCommand, NewInterpreters, ProcessStart, process_start
from service.processes.server_process import ProcessSpec, Role
from service.processes.signals import on_signals
from service.processes.sockets import open_sockets

log = logging.getLogger(__name__)

_POLL_S = 0.1
_MARGIN_S = 5.0
# Processes in the first of these states are preferred for a connection.
_RANK = {"ready": 0, "starting": 1, "draining": 2}
# The command of a process, by its number.
Command = Callable[[int], ModuleCommand]


class Supervisor:
    """Sends each connection to the ready process with the fewest; restarts ended processes.

    With an `engine`, its command, the processes are fronts, and it connects each of them to the engine.
    A process that ends before all have been ready for the first time ends the service, with that process's exit code.
    """

    def __init__(
        self,
        command: Command,
        of: int,
        sockets: Sequence[socket.socket],
        metrics: SupervisorMetrics,
        *,
        shutdown_s: float,
        engine: ModuleCommand | None = None,
        start: ProcessStart | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._servers = [ProcessHandle(number) for number in range(of)]
        self._engine = None if engine is None else ProcessHandle(of)
        self._engine_command = engine
        self._processes = [*self._servers, *([] if self._engine is None else [self._engine])]
        self._sockets = sockets
        self._accepting = False
        self._start: ProcessStart = start or NewInterpreters()
        self._metrics = metrics
        self._shutdown_s = shutdown_s
        self._clock = clock
        self._announced = False
        self._stops_asked = self._stops_sent = 0
        self._deadline = float("inf")
        self._code = 0
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Supervise until all processes have ended after `stop`; return the exit code."""
        try:
            while not self._stops_sent or any(process.running for process in self._processes):
                self._manage_processes()
                self._publish_state()
                self._handle_events()
        finally:
            self._kill_all()
            self._start.close()
            self._selector.close()
        return self._code

    def stop(self) -> None:
        """Let all processes drain; a second call ends them at once. For any thread."""
        self._stops_asked += 1

    def by_preference(self) -> list[ProcessHandle]:
        """The processes that listen, the one for the next connection first."""
        listening = [process for process in self._servers if process.listens]
        return sorted(listening, key=lambda one: (_RANK[one.state], one.connections, one.connections_sent))

    def _manage_processes(self) -> None:
        """Handle ended processes, start due ones, pass on stops, and kill past the deadline."""
        for process in self._processes:
            if process.running is not None and (code := process.running.poll()) is not None:
                self._handle_exit(process, code)
            if process.running is None and self._may_start(process):
                command = self._engine_command if process is self._engine else self._command(process.number)
                channel = process.start(cast(ModuleCommand, command), self._start, self._clock())
                self._selector.register(channel, selectors.EVENT_READ, process)
        self._start.reap_orphans([process.running.pid for process in self._processes if process.running is not None])
        self._connect_fronts()
        if self._stops_sent < self._stops_asked:
            self._terminate_servers()
        self._terminate_engine_last()
        if self._clock() > self._deadline:
            log.warning("processes did not end in time and are killed")
            self._kill_all()

    def _may_start(self, process: ProcessHandle) -> bool:
        return not self._stops_sent and self._clock() >= process.restart_at and self._start.ready

    def _connect_fronts(self) -> None:
        engine = self._engine
        if engine is not None and engine.listens and engine.state != "draining":
            for front in self._servers:
                if front.wants_engine:
                    front.connect_to(engine)

    def _publish_state(self) -> None:
        """Accept connections while a process listens; export states; greet once all are ready."""
        if self._accepting != any(process.listens for process in self._servers):
            self._accepting = not self._accepting
            for socket_ in self._sockets:
                if self._accepting:
                    self._selector.register(socket_, selectors.EVENT_READ)
                else:
                    self._selector.unregister(socket_)
        states = [process.state for process in self._processes if process.running is not None]
        for state in PROCESS_STATES:
            self._metrics.processes.labels(state).set(states.count(state))
        if not self._announced and states.count("ready") == len(self._processes):
            self._announced = True
            print(json.loads(self._servers[0].greeting), flush=True)

    def _handle_events(self) -> None:
        """Wait for connections and for messages of the processes, and handle them."""
        for key, _ in self._selector.select(_POLL_S):
            if isinstance(key.data, ProcessHandle):
                if not key.data.read_messages():
                    self._disconnect(key.data)
            elif isinstance(key.fileobj, socket.socket):
                self._accept(key.fileobj)

    def _accept(self, socket_: socket.socket) -> None:
        try:
            connection, _ = socket_.accept()
        except OSError as error:  # the caller hung up, or no descriptor is left, which must not become a busy loop
            log.warning("a connection could not be accepted: %s", error)
            time.sleep(_POLL_S)
            return
        with connection:
            if not any(process.send_connection(connection) for process in self.by_preference()):
                log.warning("no process can take a connection; it is closed")

    def _handle_exit(self, process: ProcessHandle, code: int) -> None:
        self._disconnect(process)
        process.running = None
        if self._stops_sent:
            return
        name = "the engine" if process is self._engine else f"process {process.number}"
        if not self._announced:
            if code < 0:  # a process that ends by itself has said why
                log.error("signal %d ended %s before the service was ready, which ends", -code, name)
            self._code = code if code >= 0 else 128 - code
            self.stop()
            return
        self._metrics.restarts.inc()
        delay_s = process.schedule_restart(self._clock())
        log.warning("%s ended with %d and is started again in %g s", name, code, delay_s)

    def _terminate_servers(self) -> None:
        if not self._stops_sent:
            self._deadline = self._clock() + self._shutdown_s + _MARGIN_S
            log.info("draining: the processes answer open requests, Ctrl-C again ends them at once")
        self._stops_sent = self._stops_asked
        for process in self._servers:
            if process.running is not None:
                process.running.terminate()

    def _terminate_engine_last(self) -> None:
        """End the engine, once: no front is left that needs it."""
        engine = self._engine
        if engine is None or engine.running is None or engine.state == "draining" or not self._stops_sent:
            return
        if not any(process.running for process in self._servers):
            engine.state = "draining"
            engine.running.terminate()

    def _kill_all(self) -> None:
        self._deadline = float("inf")
        for process in self._processes:
            process.kill()

    def _disconnect(self, process: ProcessHandle) -> None:
        if process.channel is not None:
            self._selector.unregister(process.channel)
            process.close_channel()


def supervise(settings: Settings, flags: Sequence[str], preloaded: str) -> int:
    """Run `sonde serve` as several processes until a signal; return the exit code.

    These are `settings.workers` servers, or `settings.fronts` fronts and an engine. They share the memory of the module
    `preloaded`, where the system can.

    All processes get `flags`. Raises CannotListen, and ConfigError for a metrics port that is in use.
    """
    metrics = SupervisorMetrics()
    with tempfile.TemporaryDirectory(prefix="sonde-") as pages, open_sockets(settings.host, settings.port) as sockets:
        if settings.grpc_port:  # server processes share it, and would share it with another service, too
            with open_sockets(settings.host, settings.grpc_port, listening=False, flag="--grpc-port"):
                pass
        page = MetricsPage(Path(pages), "parent", metrics.registry)
        listen(MetricsAggregator(Path(pages)).registry(), settings.host, settings.metrics_port)
        port = str(sockets[0].getsockname()[1])
        flags = [*flags, "--port", port, "--metrics-port", "0"]
        of = settings.fronts or settings.workers
        command, engine = _fronts(of, flags, pages) if settings.fronts else (_servers(of, flags, pages), None)
        start = process_start(preloaded)
        supervisor = Supervisor(
            command, of, sockets, metrics, shutdown_s=settings.shutdown_s, engine=engine, start=start
        )
        on_signals(supervisor.stop)
        try:
            return supervisor.run()
        finally:
            page.close()


def _servers(of: int, flags: Sequence[str], pages_directory: str) -> Command:
    """`sonde serve` as each of `of` processes."""
    divided = cpu.divide(cpu.usable_processors(), of)
    if divided is None:
        log.warning("there are more processes than cores: each computes with one thread")

    def command(number: int) -> ModuleCommand:
        processors = None if divided is None else divided[number]
        return partial(_serve, flags, lambda channel: ProcessSpec(number, of, channel, pages_directory, processors))

    return command


def _fronts(of: int, flags: Sequence[str], pages_directory: str) -> tuple[Command, ModuleCommand]:
    """`sonde serve` as each of `of` fronts, and as their engine. They share all cores."""
    if of > (cores := cpu.count_cores()):
        log.warning("%d fronts share %d cores: each takes about 35 MB; set at most one for each core", of, cores)

    def command(number: int, role: Role = "front") -> ModuleCommand:
        return partial(_serve, flags, lambda channel: ProcessSpec(number, of, channel, pages_directory, None, role))

    return command, command(of, "engine")


def _serve(flags: Sequence[str], spec: Callable[[int], ProcessSpec], channel: int) -> Sequence[str]:
    return ["service.cli", "serve", *flags, "--process-spec", spec(channel).dump()]
