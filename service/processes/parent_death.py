"""`python -m …parent_death PARENT SIGNAL COMMAND…`: signal COMMAND when PARENT dies.

On Linux the kernel sends the signal, even when the parent is killed (PR_SET_PDEATHSIG). Elsewhere a training process
ends when its next report finds no reader, and the operator must end the processes of `sonde up`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from models.interpreter import RUN_MODULE

_PR_SET_PDEATHSIG = 1


def with_parent_death_signal(number: signal.Signals, *command: str) -> list[str]:
    """The command line for a child that gets signal `number` when this process dies."""
    return [*RUN_MODULE, "service.processes.parent_death", str(os.getpid()), str(int(number)), *command]


def signal_at_parent_death(parent: int, number: int) -> None:
    """Ask the kernel for a signal to this process when its parent dies; exit where that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # the parent died before the kernel knew
            os._exit(1)


def main() -> None:
    """Ask the kernel for the signal and execute the command."""
    parent, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    signal_at_parent_death(parent, number)
    os.execvp(command[0], command)  # noqa: S606  # without a shell on purpose


if __name__ == "__main__":
    main()
