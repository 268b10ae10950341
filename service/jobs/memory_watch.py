"""The memory of a training process: its limit, and a watch that ends it above."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from models.runtime.memory import usable_bytes

_POLL_S = 0.05
_VMSTAT = Path("/proc/vmstat")
# Of the memory that this machine or container may use, where no limit is set: the service needs some, too.
_DEFAULT_SHARE = 0.8


def trainer_limit_bytes(setting: int) -> int:
    """The limit of a training process with its children; `setting` 0 takes most of the memory."""
    return setting or int(_DEFAULT_SHARE * usable_bytes())


def kernel_oom_kills(vmstat: Path = _VMSTAT) -> int:
    """Processes that the kernel has killed because memory ran out, since it started; 0 where it does not tell."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


class MemoryWatch:
    """Polls the resident memory of a process and its children, and kills them all above a limit.

    A limit of the kernel's (RLIMIT_AS, RLIMIT_DATA) would count address space that CUDA only reserves, and libraries
    in Rust abort where it is reached.
    """

    def __init__(self, pid: int, limit_bytes: int, kill: Callable[[], None]) -> None:
        self.limit_bytes = limit_bytes
        self.exceeded = threading.Event()
        self._process = psutil.Process(pid)
        self._kill = kill
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch-memory", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_S):
            try:
                used = sum(one.memory_info().rss for one in [self._process, *self._process.children(recursive=True)])
            except psutil.NoSuchProcess:
                continue  # one of them has just ended
            if used > self.limit_bytes:
                self.exceeded.set()
                self._kill()
                return
