"""Several processes behind one port share connections evenly, and one that ends is replaced. They have no models."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from models.runtime import cpu
from service.config import Settings
from service.errors import CannotListen
from service.metrics import SupervisorMetrics
from service.processes.server_process import ProcessSpec, ServerProcess
from service.processes.sockets import open_sockets
from service.processes.supervisor import Supervisor, supervise
from tests.support.server import free_port, wait_until

pytestmark = pytest.mark.real


class Running:
    """A supervisor in a thread, and how to call it."""

    def __init__(self, supervisor: Supervisor, port: int, metrics: SupervisorMetrics) -> None:
        self.supervisor, self.port, self.metrics = supervisor, port, metrics
        self.codes: list[int] = []
        self.thread = threading.Thread(target=lambda: self.codes.append(supervisor.run()))

    def call(self, stack: ExitStack) -> int:
        """Connect and stay; the number of the process that answered."""
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=20))
        return int(connection.recv(64))

    def pid(self, number: int) -> int:
        running = self.supervisor._processes[number].running
        assert running is not None
        return running.pid

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def code(self) -> int:
        self.thread.join(20)
        assert self.codes, "it did not end"
        return self.codes[0]


@contextmanager
def supervisor_of(number: int, ways: Mapping[int, str] | None = None, shutdown_s: float = 10.0) -> Iterator[Running]:
    """A supervisor of `number`, each of which behaves in the way that is given for it."""
    metrics = SupervisorMetrics()

    def command(number: int) -> Callable[[int], Sequence[str]]:
        def with_channel(channel: int) -> Sequence[str]:
            return [
                "tests.support.numbered_server",
                ProcessSpec(number, 2, channel, "", None).dump(),
                (ways or {}).get(number, ""),
            ]

        return with_channel

    with open_sockets("127.0.0.1", 0) as sockets:
        running = Running(
            Supervisor(command, number, sockets, metrics, shutdown_s=shutdown_s), sockets[0].getsockname()[1], metrics
        )
        running.thread.start()
        try:
            yield running
        finally:
            running.supervisor.stop()
            running.thread.join(20)
            running.supervisor.stop()


@pytest.fixture(scope="module")
def pair() -> Iterator[Running]:
    """Two that serve; tests leave them as they are."""
    with supervisor_of(2) as running:
        wait_until(lambda: running.metric("sonde_processes", state="ready") == 2, 60)
        yield running


def test_each_process_gets_as_many_connections(pair: Running) -> None:
    for clients in (4, 7, 32):
        with ExitStack() as stack:
            counts = Counter(pair.call(stack) for _ in range(clients))
            assert sorted(counts.values()) == [clients // 2, clients - clients // 2]
        wait_until(lambda: [process.connections for process in pair.supervisor._processes] == [0, 0])


def test_who_has_fewer_gets_the_next(pair: Running) -> None:
    with ExitStack() as stays, ExitStack() as goes:
        numbers = [pair.call(stays if at % 2 else goes) for at in range(6)]
        assert numbers in ([0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0])
        goes.close()
        wait_until(lambda: sum(process.connections for process in pair.supervisor._processes) == 3)
        assert [pair.call(stays) for _ in range(3)] == [numbers[0]] * 3


def test_one_that_is_killed_is_replaced_while_the_others_serve(capsys: pytest.CaptureFixture[str]) -> None:
    with supervisor_of(2) as running, ExitStack() as stack:
        wait_until(lambda: running.metric("sonde_processes", state="ready") == 2, 60)
        first = running.pid(0)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not running.supervisor._processes[0].listens)
        assert [running.call(stack) for _ in range(3)] == [1, 1, 1]
        wait_until(lambda: running.metric("sonde_process_restarts_total") == 1)
        wait_until(lambda: running.metric("sonde_processes", state="ready") == 2, 60)
        assert running.pid(0) != first
        assert [running.call(stack) for _ in range(3)] == [0, 0, 0]
        running.supervisor.stop()
        assert running.code() == 0
    assert capsys.readouterr().out == "all ready,\nsays 0\n", "said once, when all were ready for the first time"


def test_one_that_drains_gets_no_more_and_is_replaced() -> None:
    with supervisor_of(2) as running, ExitStack() as stack:
        wait_until(lambda: running.metric("sonde_processes", state="ready") == 2, 60)
        os.kill(running.pid(1), signal.SIGTERM)
        wait_until(lambda: running.supervisor._processes[1].state == "draining")
        assert [running.call(stack) for _ in range(3)] == [0, 0, 0]
        wait_until(lambda: running.metric("sonde_processes", state="ready") == 2, 60)


def test_ready_ones_are_preferred_and_others_serve_where_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    with supervisor_of(2, {0: "loading"}) as running, ExitStack() as stack:
        wait_until(lambda: all(process.listens for process in running.supervisor._processes), 20)
        wait_until(lambda: running.supervisor._processes[1].state == "ready")
        assert [running.call(stack) for _ in range(3)] == [1, 1, 1]
    assert capsys.readouterr().out == "", "not all are ready"
    with supervisor_of(1, {0: "loading"}) as running, ExitStack() as stack:
        assert running.call(stack) == 0, "who connects before anybody listens waits"


@pytest.mark.parametrize(("way", "code"), [("wrong", 2), ("broken", 1), ("killed", 128 + 9)])
def test_what_cannot_start_ends_all_with_its_code(way: str, code: int, caplog: pytest.LogCaptureFixture) -> None:
    with supervisor_of(2, {1: way}) as running:
        assert running.code() == code
        assert running.metric("sonde_process_restarts_total") == 0
    told = "signal 9 ended process 1 before the service was ready, which ends" in caplog.messages
    assert told == (way == "killed"), "what ends by itself says why"


def test_who_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.processes.supervisor._MARGIN_S", 0.2)
    with supervisor_of(1, {0: "deaf"}, shutdown_s=0.3) as running:
        wait_until(lambda: running.metric("sonde_processes", state="ready") == 1, 20)
        began = time.monotonic()
        running.supervisor.stop()
        assert running.code() == 0
        assert time.monotonic() - began < 5


@pytest.fixture
def server_process() -> Iterator[Callable[[list[int] | None], ServerProcess]]:
    """Makes the second of four processes, which may run on some processors."""
    ours, theirs = socket.socketpair()
    before = cpu.usable_processors()
    made: list[ServerProcess] = []

    def make(processors: list[int] | None) -> ServerProcess:
        made.append(ServerProcess(ProcessSpec.load(ProcessSpec(1, 4, theirs.detach(), "", processors).dump())))
        return made[-1]

    with ours:
        yield make
    cpu.pin_to(before)
    made[0].close()


def test_a_process_that_ends_while_its_models_open_says_nothing_more(
    server_process: Callable[[list[int] | None], ServerProcess],
) -> None:
    process = server_process(None)
    announce = process.announcing(lambda url, models: f"ready at {url}")
    process.close()
    announce("http://127.0.0.1:8000", [])


def test_a_supervisor_that_is_killed_is_no_error_of_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    process = ServerProcess(ProcessSpec(0, 1, theirs.detach(), "", None))
    faults: list[object] = []

    async def lose_supervisor() -> None:
        loop, gone = asyncio.get_running_loop(), asyncio.Event()

        def keep(_: object, about: dict[str, object]) -> None:
            faults.append(about["exception"])
            gone.set()

        loop.set_exception_handler(keep)
        monkeypatch.setattr(loop, "remove_reader", lambda _: gone.set())
        process.take_connections(asyncio.Protocol)
        ours.close()  # without reading the state that it was sent, so that the next read is refused
        await asyncio.wait_for(gone.wait(), 10)

    asyncio.run(lose_supervisor())
    process._channel.close()
    assert faults == []


def test_a_process_keeps_to_its_cores_and_its_part_of_the_limits(
    server_process: Callable[[list[int] | None], ServerProcess],
) -> None:
    mine = cpu.usable_processors()[-1:]
    shared = server_process(mine).take_share(Settings(max_queued_items=100))
    assert cpu.usable_processors() == mine
    assert (shared.max_queued_items, shared.threads, shared.tokenizer_threads) == (25, 1, 0)


@pytest.mark.parametrize(("quota", "threads"), [(4.0, 1), (100.0, 2), (None, 2)])
def test_a_process_keeps_to_its_part_of_a_quota(
    server_process: Callable[[list[int] | None], ServerProcess],
    monkeypatch: pytest.MonkeyPatch,
    quota: float | None,
    threads: int,
) -> None:
    monkeypatch.setattr(cpu, "quota", lambda: quota)
    monkeypatch.setattr(cpu, "core_of", lambda processor: (0, processor))
    assert server_process(cpu.usable_processors()[:2]).take_share(Settings()).threads == threads


def test_a_process_serves_without_a_name_where_it_may_write_none(
    server_process: Callable[[list[int] | None], ServerProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "comm"
    monkeypatch.setattr("service.processes.server_process._COMM", file)
    process = server_process(None)
    process.show_name()
    assert file.read_text() == "sonde-server-1"
    file.unlink()
    file.mkdir()
    process.show_name()


def test_where_cores_are_too_few_each_computes_with_one_thread(
    server_process: Callable[[list[int] | None], ServerProcess],
) -> None:
    before = cpu.usable_processors()
    shared = server_process(None).take_share(Settings(tokenizer_threads=3))
    assert cpu.usable_processors() == before
    assert (shared.threads, shared.tokenizer_threads) == (1, 3), "what was asked for is done"


def test_an_address_that_is_taken_is_named() -> None:
    with open_sockets("127.0.0.1", free_port()) as sockets:
        port = sockets[0].getsockname()[1]
        with (
            pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"),
            open_sockets("127.0.0.1", port),
        ):
            pass


def test_one_port_for_http_and_grpc_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "run", lambda self: 0)
    port = free_port()
    settings = Settings.read({"home": tmp_path, "fronts": 2, "port": port, "grpc_port": port})
    with pytest.raises(CannotListen, match="--grpc-port takes another"):
        supervise(settings, [], "service.preloaded")


def test_all_addresses_of_a_name_are_on_one_port() -> None:
    with open_sockets("localhost", 0) as sockets:
        assert len({socket_.getsockname()[1] for socket_ in sockets}) == 1
        assert len(sockets) >= 1
