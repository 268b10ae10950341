"""A training process in a process group of its own, which ends for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.interpreter import RUN_MODULE
from service.jobs.memory_watch import MemoryWatch, kernel_oom_kills
from service.jobs.trainer_output import Message, TrainerOutput
from service.processes.parent_death import with_parent_death_signal

TRAINER: tuple[str, ...] = (*RUN_MODULE, "models.training.run")
LOG = "trainer.log"
_TAIL_BYTES = 4000


class TrainingProcess:
    """Runs `command DIRECTORY` within a limit of memory. Leaving the `with` kills its whole process group."""

    def __init__(self, command: Sequence[str], directory: Path, home: Path, max_memory_bytes: int) -> None:
        self._directory = directory
        self._oom_kills_before = kernel_oom_kills()
        with (directory / LOG).open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # a command of ours, no shell
                with_parent_death_signal(signal.SIGKILL, *command, str(directory)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        if self._process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        self._stdout = self._process.stdout
        self._output = TrainerOutput(self._stdout, home)
        self._memory = MemoryWatch(self._process.pid, max_memory_bytes, lambda: self._signal(signal.SIGKILL))

    @property
    def took_too_much_memory(self) -> bool:
        """Whether it was killed because it took more memory than allowed."""
        return self._memory.exceeded.is_set()

    @property
    def killed_for_memory(self) -> bool:
        """Whether it ended by SIGKILL while the kernel killed processes because memory ran out."""
        return self._process.returncode == -signal.SIGKILL and kernel_oom_kills() > self._oom_kills_before

    def wait(self, timeout_s: float) -> int | None:
        """The exit code; None while it runs on."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._output.finish(timeout_s)
        return code

    def messages(self) -> Iterator[Message]:
        """The messages on its standard output since the last call."""
        return self._output.take()

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the group: write a checkpoint and end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the group and wait for the process."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def stderr_tail(self) -> str:
        """The end of what it wrote to standard error."""
        with (self._directory / LOG).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return stream.read().decode(errors="replace").strip()

    def __enter__(self) -> TrainingProcess:
        return self

    def __exit__(self, *about: object) -> None:
        self._memory.end()
        self.kill()
        self._output.finish(1.0)
        self._stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives a leader that left children behind; it is gone once all of them have ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
