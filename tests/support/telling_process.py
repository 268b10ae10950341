"""A process that tells about itself, then ends with the number that it gets: `… telling_process CHANNEL`."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import threading
from pathlib import Path

import numpy as np


def main() -> int:
    """Tell, and wait for the number."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    facts = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "group": os.getpgid(0),
        "words": sys.argv,
        "main": __spec__.name,
        "numbers": [random.random(), float(np.random.rand())],  # a fork copies numpy's generator
        "threads": threading.active_count(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "interrupts": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "environment": os.environ.get("OMP_NUM_THREADS"),
        "forked": "service.processes.fork_server" in Path("/proc/self/cmdline").read_text(),
    }
    channel.send(json.dumps(facts).encode())
    return int(channel.recv(16) or b"0")


if __name__ == "__main__":
    sys.exit(main())
