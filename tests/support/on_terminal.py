"""`python -m tests.support.on_terminal WORD…`: `sonde WORD…` with the terminal of standard input as its own.

The program must lead a session, as `subprocess.Popen(…, start_new_session=True)` has it. Ctrl-C then becomes SIGINT.
"""

from __future__ import annotations

import fcntl
import runpy
import signal
import sys
import termios


def main() -> None:
    """Take the terminal, and be the program."""
    fcntl.ioctl(sys.stdin, termios.TIOCSCTTY, 0)
    # Ctrl-C counts, as in a terminal, also where these tests run in the background and inherit that it does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runpy.run_module("service.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
