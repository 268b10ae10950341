"""Forked processes are children of the supervisor like new interpreters, and share what was imported before."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.processes.process_start import Forks, NewInterpreters, ProcessStart, RunningProcess, process_start
from tests.support.jobs import exists
from tests.support.server import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("executed_programs"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are adopted on Linux alone"),
]

_PR_SET_CHILD_SUBREAPER = 36
Start = Callable[[str], Forks]


@pytest.fixture
def forks_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Makes the process to fork from, by the module that it imports."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    made: list[Forks] = []

    def make(module: str) -> Forks:
        made.append(Forks(module))
        wait_until(lambda: made[-1].ready, 30)
        return made[-1]

    yield make
    for forks in made:
        forks.close()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0)


def tell(start: ProcessStart) -> tuple[RunningProcess, dict[str, Any], socket.socket]:
    """Start a process: how it is seen here, what it tells, and the channel on which it waits for its exit code."""
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    with theirs:
        process = start.start(
            lambda channel: ["tests.support.telling_process", str(channel), "and more"], theirs.fileno()
        )
    return process, json.loads(ours.recv(65536)), ours


def end(process: RunningProcess, channel: socket.socket, code: int = 0) -> int:
    with channel:
        channel.send(str(code).encode())
        return process.wait()


def test_a_fork_is_a_process_as_a_new_interpreter_is(forks_of: Start) -> None:
    seen = []
    for start in (forks_of("numpy.random"), NewInterpreters()):
        process, told, channel = tell(start)
        assert process.pid == told["pid"]
        assert process.poll() is None
        assert told["words"][1:] == [told["words"][1], "and more"]
        assert told.pop("forked") is isinstance(start, Forks)
        assert end(process, channel, 7) == 7
        assert process.poll() == 7
        process.terminate()  # of one that has ended: nothing
        assert told["session"] == told["group"] == told["pid"]
        seen.append({name: told[name] for name in ("parent", "main", "threads", "interrupts", "environment", "files")})
    assert seen[0] == seen[1]
    assert seen[0]["parent"] == os.getpid()
    assert seen[0]["environment"] == "3", "set before the libraries were imported"


def test_forks_draw_different_numbers(forks_of: Start) -> None:
    forks = forks_of("numpy.random")
    numbers = []
    for _ in range(2):
        process, told, channel = tell(forks)
        numbers += told["numbers"]
        end(process, channel)
    assert len(set(numbers)) == 4


def test_a_signal_is_the_code_and_nothing_is_left(forks_of: Start) -> None:
    process, _, channel = tell(forks_of("json"))
    process.terminate()
    assert process.wait() == -signal.SIGTERM
    assert not exists(process.pid)
    channel.close()


@pytest.mark.parametrize(
    ("content", "fault"),
    [("import nothing_of_this_name", "nothing_of_this_name"), (
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "expected one thread after the imports, got 2",
    )],
)  # fmt: skip
def test_what_cannot_be_imported_or_starts_threads_is_not_forked(
    content: str,
    fault: str,
    forks_of: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "module_to_fork.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    with caplog.at_level(logging.WARNING):
        process, told, channel = tell(forks_of("module_to_fork"))
    assert not told["forked"]
    assert "could not import the service: server processes start as new interpreters" in caplog.text
    assert fault in capfd.readouterr().err
    assert end(process, channel) == 0


def test_processes_outlive_the_one_that_they_were_forked_from(
    forks_of: Start, caplog: pytest.LogCaptureFixture
) -> None:
    forks = forks_of("json")
    first, _, channel = tell(forks)
    forks._server.kill()
    forks._server.wait()
    second, told, other_channel = tell(forks)
    assert not told["forked"]
    assert "has failed" in caplog.text
    assert (end(first, channel, 3), end(second, other_channel, 4)) == (3, 4)


def test_orphans_of_others_are_reaped(forks_of: Start) -> None:
    forks = forks_of("json")
    process, _, channel = tell(forks)
    orphan = int(subprocess.run(["sh", "-c", "sleep 0.1 & echo $!"], stdout=subprocess.PIPE, check=True).stdout)
    assert Path(f"/proc/{orphan}").exists()
    process.kill()

    def reaped() -> bool:
        process.poll()
        forks.reap_orphans([process.pid])
        return not Path(f"/proc/{orphan}").exists()

    wait_until(reaped)
    assert process.wait() == -signal.SIGKILL
    channel.close()


def test_where_none_can_be_adopted_processes_are_interpreters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing:
        @staticmethod
        def prctl(*_: int) -> int:
            return -1

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: Refusing())
    assert isinstance(process_start("json"), NewInterpreters)
    assert "cannot adopt others" in caplog.text
