"""`python -m service.processes.parent_death PARENT SIGNAL COMMAND…`: become COMMAND, and get SIGNAL when the process
PARENT dies.

A process that is killed can no longer end the ones it started; on Linux the kernel does. Elsewhere a training
process ends when it next reports, since nobody reads it, and what `sonde up` started has to be ended by hand.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def with_parent_death_signal(number: signal.Signals, *command: str) -> list[str]:
    """The words that start COMMAND as a child of this process which gets a signal when this process dies."""
    return [sys.executable, "-m", "service.processes.parent_death", str(os.getpid()), str(int(number)), *command]


def main() -> None:
    """Put the leash on and turn into the command."""
    parent, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the leash was on
            os._exit(1)
    os.execvp(command[0], command)  # noqa: S606  # no shell is what is wanted


if __name__ == "__main__":
    main()
