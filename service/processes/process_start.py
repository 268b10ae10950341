"""Starts of server processes: as forks of one that has imported the service, or as new interpreters."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from models.interpreter import RUN_MODULE
from service.processes.fork_server import MAX_COMMAND_BYTES, READY
from service.processes.parent_death import with_parent_death_signal

log = logging.getLogger(__name__)

# A module with its arguments, given the number of the one descriptor that it gets.
ModuleCommand = Callable[[int], Sequence[str]]
_PR_SET_CHILD_SUBREAPER = 36
_FORK_S = 10.0


class RunningProcess(Protocol):
    """A child of this process, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """The exit code, or minus the signal's number; None while it runs."""
        ...

    def wait(self) -> int:
        """Wait for its end; return what `poll` returns."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""
        ...

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        ...


class ProcessStart(Protocol):
    """A way to start processes."""

    @property
    def ready(self) -> bool:
        """Whether it can start one now."""
        ...

    def start(self, command: ModuleCommand, descriptor: int) -> RunningProcess:
        """Run a module in a session of its own, with a descriptor. It ends with its parent."""
        ...

    def reap_orphans(self, known: Collection[int]) -> None:
        """Reap ended processes that this process has adopted by chance: all but the `known` ones."""
        ...

    def close(self) -> None:
        """Start no more."""
        ...


class NewInterpreters:
    """Each process imports what it needs."""

    ready = True

    def start(self, command: ModuleCommand, descriptor: int) -> RunningProcess:
        """Start an interpreter."""
        return _interpreter(signal.SIGTERM, command(descriptor), descriptor)

    def reap_orphans(self, known: Collection[int]) -> None:
        """Nothing is adopted."""

    def close(self) -> None:
        """Nothing waits."""


class Forks:
    """Processes are forks of one that has imported `module`, and children of this one, which adopts them. Linux only.

    Where that process cannot import it or has ended, processes are new interpreters, which say what is wrong. Raises
    OSError where the system lets this process adopt none.
    """

    def __init__(self, module: str) -> None:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1):
            raise OSError(ctypes.get_errno(), "this process cannot adopt others")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            # In a fork, its channel has the number of this socket.
            self._descriptor = theirs.fileno()
            words = ["service.processes.fork_server", str(self._descriptor), module]
            self._server = _interpreter(signal.SIGKILL, words, self._descriptor)
        self._imported = False
        self._failed = False

    @property
    def ready(self) -> bool:
        """Whether the module is imported, or cannot be."""
        if not self._imported and not self._failed:
            try:
                self._imported = self._control.recv(len(READY)) == READY
            except BlockingIOError:
                return False
            if not self._imported:
                self._give_up("the process to fork from could not import the service")
        return True

    def start(self, command: ModuleCommand, descriptor: int) -> RunningProcess:
        """Fork a process, or start an interpreter."""
        if not self._failed:
            try:
                return self._fork(command(self._descriptor), descriptor)
            except (OSError, ValueError) as error:
                self._give_up(f"the process to fork from has failed ({error})")
        return NewInterpreters().start(command, descriptor)

    def reap_orphans(self, known: Collection[int]) -> None:
        """Reap children of processes that have ended."""
        self._server.poll()
        with contextlib.suppress(ChildProcessError):  # there is no child at all
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None and found.si_pid not in known:
                os.waitpid(found.si_pid, 0)

    def close(self) -> None:
        """End the process that is forked from."""
        self._control.close()
        self._server.kill()
        self._server.wait()

    def _fork(self, words: Sequence[str], descriptor: int) -> RunningProcess:
        content = json.dumps(list(words)).encode()
        if len(content) > MAX_COMMAND_BYTES:
            raise ValueError(f"a command line of {len(content)} bytes, {MAX_COMMAND_BYTES} are allowed")
        self._control.settimeout(_FORK_S)
        socket.send_fds(self._control, [content], [descriptor])
        return AdoptedProcess(int(self._control.recv(64)))

    def _give_up(self, why: str) -> None:
        log.warning("%s: server processes start as new interpreters", why)
        self._failed = True
        self.close()


class AdoptedProcess:
    """A child that another process has forked."""

    def __init__(self, pid: int) -> None:
        if pid <= 0:
            raise ChildProcessError("no process could be forked")
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, or minus the signal's number; None while it runs."""
        if self._code is None:
            self._reap(os.WNOHANG)
        return self._code

    def wait(self) -> int:
        """Wait for its end; return what `poll` returns."""
        return self._reap(0) if self._code is None else self._code

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self._signal(signal.SIGKILL)

    def _reap(self, options: int) -> int:
        pid, status = os.waitpid(self.pid, options)
        code = os.waitstatus_to_exitcode(status)
        if pid:  # 0 while it runs
            self._code = code
        return code

    def _signal(self, number: signal.Signals) -> None:
        if self.poll() is None:  # its number stays its own until it is reaped
            os.kill(self.pid, number)


def _interpreter(at_parent_death: signal.Signals, words: Sequence[str], descriptor: int) -> subprocess.Popen[bytes]:
    """`python -m` as a child in a session of its own."""
    command = with_parent_death_signal(at_parent_death, *RUN_MODULE, *words)
    return subprocess.Popen(command, pass_fds=[descriptor], start_new_session=True)  # noqa: S603


def process_start(module: str) -> ProcessStart:
    """The way to start processes on this system; `module` is imported before it is needed."""
    if sys.platform != "linux":
        return NewInterpreters()
    try:
        return Forks(module)
    except OSError as error:
        log.warning("server processes start as new interpreters: %s", error)
        return NewInterpreters()
