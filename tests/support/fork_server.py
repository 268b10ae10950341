"""Programs of ours as forks of a process that has imported PyTorch, which takes an executed program 2 s.

To `subprocess`, a fork is as any program: a child of the caller with its own arguments, environment, directory,
descriptors, session and exit code. `python -m tests.support.fork_server` is the process that forks. The processes that
pytest-xdist starts for the tests are forks as well: they share one import of PyTorch.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NoReturn, Self

from execnet.gateway_io import popen_bootstrapline

from models.interpreter import RUN_MODULE
from tests.support.shared_imports import import_shared

_FORKED = {
    "examples.chatbot",
    "models.training.run",
    "service.cli",
    "service.jobs.golden_check",
    "service.jobs.held_out_check",
    "service.processes.fork_server",
    "service.processes.parent_death",
    "tests.support.failing_trainer",
    "tests.support.numbered_server",
    "tests.support.on_terminal",
    "tests.support.program_fuzzer",
    "tests.support.python_block",
    "tests.support.worker_process",
}
_TESTS = ["-u", "-c", popen_bootstrapline]  # what pytest-xdist starts: a process of tests
# They start programs themselves, and so get a process that forks.
_PARENTS = {"serve", "up", "worker", "tests.support.worker_process", popen_bootstrapline}
# The interpreter and its libraries read these variables while they load: a program with other values is executed.
_READ_AT_START = ("PYTHON", "GOMP_", "OMP_", "MKL_", "LD_", "MALLOC_", "GLIBC_", "HF_", "HOME", "XDG_", "TORCH")
_MAX_BYTES = 1 << 18
_MAX_DESCRIPTORS = 16
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


@dataclass(frozen=True)
class Program:
    """`python WORD…`; `targets` are the numbers that the descriptors sent with it shall have."""

    words: list[str]
    environment: dict[str, str]
    directory: str
    umask: int
    new_session: bool
    targets: list[int]

    @property
    def name(self) -> str:
        """The command of `sonde`, or the module."""
        before = next((word for word in ("service.cli", "-m") if word in self.words), self.words[0])
        return self.words[self.words.index(before) + 1]

    @property
    def starts_programs(self) -> bool:
        return not _PARENTS.isdisjoint(self.words)


class ForkServer:
    """The process that forks for this one. It ends with this one."""

    def __init__(self, commands: socket.socket) -> None:
        self._commands = commands
        self._turn = threading.Lock()

    @classmethod
    def launch(cls, *flags: str) -> Self:
        """Execute it, and return while it imports."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno()), *flags]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        process.returncode = 0  # no caller waits for this process
        return cls(ours)

    def start(self, program: Program, descriptors: Sequence[int]) -> int:
        """Start a program as a child of this process; return its process id."""
        with self._turn, _adopting_orphans():
            socket.send_fds(self._commands, [json.dumps(asdict(program)).encode()], descriptors)
            pid = self._commands.recv(_MAX_BYTES)
        if not pid:
            raise ChildProcessError("the process that forks has ended")
        return int(pid)

    def close(self) -> None:
        self._commands.close()


class Forking:
    """`subprocess._fork_exec` for programs of ours; other programs are executed."""

    current: ClassVar[Forking | None] = None  # of a fork that starts programs itself

    def __init__(self, server: ForkServer | None = None) -> None:
        self._server = server
        self._execute: Any = vars(subprocess)["_fork_exec"]

    def install(self) -> None:
        vars(subprocess)["_fork_exec"] = self._start

    def launch(self, *, training: bool = True) -> ForkServer:
        """The process that forks, which is executed first where there is none yet."""
        if self._server is None:
            with self.suspended():
                self._server = ForkServer.launch(*["--training"] * training)
        return self._server

    def remove(self) -> None:
        vars(subprocess)["_fork_exec"] = self._execute

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Execute all programs for a while."""
        self.remove()
        yield
        self.install()

    def close(self) -> None:
        self.remove()
        if self._server is not None:
            self._server.close()

    def _start(self, *given: Any) -> int:
        """Start a program; the arguments are those of `_posixsubprocess.fork_exec` in Python 3.11 and later."""
        words, _, _, kept, directory, environment = given[:6]
        streams = [given[6], given[9], given[11]]
        error_pipe, new_session, prepare = given[13], given[15], given[21]
        variables = _variables(environment)
        if prepare is not None or not _may_be_forked(words, variables):
            return int(self._execute(*given))
        targets = [*range(len(streams)), *(number for number in kept if number != error_pipe)]
        descriptors = [stream if stream >= 0 else number for number, stream in enumerate(streams)] + targets[3:]
        program = Program(
            words[1:], variables, os.fspath(directory or Path.cwd()), _umask(), bool(new_session), targets
        )
        return self.launch().start(program, descriptors)


def _variables(environment: Sequence[bytes] | None) -> dict[str, str]:
    if environment is None:
        return dict(os.environ)
    return {name: value for name, _, value in (os.fsdecode(entry).partition("=") for entry in environment)}


def _may_be_forked(words: Sequence[str], variables: Mapping[str, str]) -> bool:
    program = list(words[:2]) == [sys.executable, "-m"] and words[2] in _FORKED
    program = program or (tuple(words[:3]) == RUN_MODULE and words[3] in _FORKED)
    tests = list(words) == [sys.executable, *_TESTS]
    return (program or tests) and _read_at_start(variables) == _read_at_start(os.environ)


def _read_at_start(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(_READ_AT_START)}


def _umask() -> int:
    found = re.search(r"Umask:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1], 8)


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Become the parent of descendants whose parent ends: the process that forks ends the one between."""
    libc, before = ctypes.CDLL(None, use_errno=True), ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, before.value)


def main() -> None:
    """Import, then fork on command."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.modules["tests.support.fork_server"] = sys.modules["__main__"]  # the tests read `Forking.current`
    import_shared(training="--training" in sys.argv)
    _fork_on_command(socket.socket(fileno=int(sys.argv[1])), interrupt)


def _fork_on_command(commands: socket.socket, interrupt: Any) -> NoReturn:
    """Answer each command with the process id of a fork, until the other end closes."""
    while True:
        command, descriptors, _, _ = socket.recv_fds(commands, _MAX_BYTES, _MAX_DESCRIPTORS)
        if not command:
            os._exit(0)
        if (between := os.fork()) == 0:
            between = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == between:
                time.sleep(0.0005)
            commands.send(str(os.getpid()).encode())
            _run(Program(**json.loads(command)), descriptors, interrupt)
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _run(program: Program, descriptors: Sequence[int], interrupt: Any) -> NoReturn:
    """Be the program, and before that fork the process that forks for it."""
    if program.new_session:
        os.setsid()
    Path("/proc/self/comm").write_text(program.name[:15])
    _place(descriptors, program.targets)
    if program.starts_programs:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            _place([null] * 3 + [theirs.fileno()], [0, 1, 2, theirs.fileno()])
            _fork_on_command(theirs, interrupt)
        theirs.close()
        Forking.current = Forking(ForkServer(ours))
        Forking.current.install()
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(program.directory)
    os.umask(program.umask)
    os.environ.clear()
    os.environ.update(program.environment)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    vars(os)["execvp"] = _execute_in_place
    try:
        _run_words(program.words)
    except SystemExit as ended:
        _end(ended.code)
    except BaseException:
        traceback.print_exc()
        _end(1)
    _end(0)


def _end(code: Any) -> NoReturn:
    """End as the interpreter does, but leave objects where they are: to free PyTorch's takes a third of a second."""
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else code is not None)


def _place(descriptors: Sequence[int], targets: Sequence[int]) -> None:
    """Give descriptors their numbers, and close all others."""
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, max(targets) + 1) for descriptor in descriptors]
    for descriptor, target in zip(moved, targets, strict=True):
        os.dup2(descriptor, target)
    others = {int(path.name) for path in Path("/proc/self/fd").iterdir()}.difference(targets)
    for number in others:
        with suppress(OSError):  # the listing's own
            os.close(number)


def _execute_in_place(file: str, words: list[str]) -> NoReturn:
    """`os.execvp`, which runs programs of ours in this process."""
    if not _may_be_forked(words, os.environ):
        os.execve(shutil.which(file) or file, words, os.environ)
    _run_words(words[1:])
    sys.exit()


def _run_words(words: Sequence[str]) -> None:
    if words == _TESTS:
        sys.modules["__main__"] = ModuleType("__main__")
        exec(words[-1], vars(sys.modules["__main__"]))
        return
    module, *arguments = words[words.index("-m") + 1 :]
    sys.argv = [module, *arguments]
    sys.path[0] = str(Path.cwd())
    for imported in (module, "service.cli"):  # which a process may run that it forks
        sys.modules.pop(imported, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
