"""`python -m …fork_server CHANNEL MODULE`: import a module once, and fork processes that have it.

The processes share the memory of what is imported until they write to it, and start without importing it again. The
supervisor is at the other end of the channel; `process_start.py` has its side.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from service.processes.parent_death import signal_at_parent_death

READY = b"ready"
# The longest command line, one with many models.
MAX_COMMAND_BYTES = 2**17


def main() -> None:
    """Fork until the supervisor closes the channel; each forked process runs the module that it is for."""
    control, module = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    # A collection writes to all objects, which copies the memory that is shared.
    gc.disable()
    importlib.import_module(module)
    gc.freeze()
    _require_one_thread()
    control.send(READY)
    if words := _serve(control, os.getppid()):
        gc.enable()
        _seed_numpy()
        sys.argv = list(words)
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _require_one_thread() -> None:
    """Raise RuntimeError where imports have started threads: a fork has none of them, but the locks that they held.

    OpenBLAS ends its threads before a fork, and starts them again when they are needed.
    """
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        raise RuntimeError(f"expected one thread after the imports, got {threads}")


def _serve(control: socket.socket, supervisor: int) -> Sequence[str]:
    """Fork a process for each command. Returns, in each of these, its module and arguments; at the end nothing."""
    while True:
        command, descriptors, _, _ = socket.recv_fds(control, MAX_COMMAND_BYTES, 1)
        if not command:
            return ()
        [channel] = descriptors
        ours, theirs = socket.socketpair()
        if (intermediate := os.fork()) == 0:
            ours.close()
            _fork_again(theirs)
            _become_child_of(supervisor, theirs)
            os.dup2(channel, control.detach())  # the supervisor has put this number into the command
            os.close(channel)
            return list(map(str, json.loads(command)))
        theirs.close()
        os.close(channel)
        _hand_over(control, ours, intermediate)


def _fork_again(link: socket.socket) -> None:
    """Return in a process whose parent ends now: the supervisor, a subreaper, adopts it."""
    try:
        pid = os.fork()
    except OSError:
        os._exit(1)
    if pid:
        link.send(str(pid).encode())
        os._exit(0)


def _hand_over(control: socket.socket, link: socket.socket, intermediate: int) -> None:
    """Tell the supervisor the number of its new process, 0 where the system forks no more, and let that begin."""
    with link:
        pid = link.recv(64)
        os.waitpid(intermediate, 0)  # from now on, the supervisor is the parent
        control.send(pid or b"0")
        if pid:
            link.send(READY)


def _become_child_of(supervisor: int, link: socket.socket) -> None:
    """Wait until the supervisor has adopted this process, which then ends with it. It gets a session of its own."""
    with link:
        if not link.recv(len(READY)):
            os._exit(1)
    os.setsid()
    signal_at_parent_death(supervisor, signal.SIGTERM)


def _seed_numpy() -> None:
    """Seed numpy's global generator, which all forks have alike. Python's `random` seeds itself after a fork."""
    if "numpy.random" in sys.modules:
        importlib.import_module("numpy.random").seed()


if __name__ == "__main__":
    main()
