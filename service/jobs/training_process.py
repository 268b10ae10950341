"""One training subprocess: started in a process group of its own, asked to stop, ended for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.jobs.trainer_output import Message, TrainerOutput

TRAINER: tuple[str, ...] = (sys.executable, "-m", "models.training.run")
LOG = "trainer.log"
_TAIL_BYTES = 4000


class TrainingProcess:
    """Runs `command DIRECTORY`. Leaving the `with` ends its whole process group."""

    def __init__(self, command: Sequence[str], directory: Path, home: Path) -> None:
        self._directory = directory
        with_death_signal = (
            sys.executable,
            "-m",
            "service.processes.parent_death",
            str(os.getpid()),
            str(int(signal.SIGKILL)),
        )
        with (directory / LOG).open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # a command of ours, no shell
                [*with_death_signal, *command, str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        if self._process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        self._stdout = self._process.stdout
        self._reader = TrainerOutput(self._stdout, home)

    def wait(self, timeout_s: float) -> int | None:
        """The exit code; None while it runs on."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.finish(timeout_s)
        return code

    def said(self) -> Iterator[Message]:
        """What it said since."""
        return self._reader.take()

    def ask_to_stop(self) -> None:
        """SIGTERM to all of the group: write a checkpoint and end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End all of the group, now."""
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
        self.kill()
        self._reader.finish(1.0)
        self._stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives its leader when that left children behind; it is gone when nobody is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
