"""A process that is asked to end, several times at once."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

WAITS = """
import sys, threading
from service.processes.signals import on_signals

asked = threading.Event()
on_signals(asked.set)
print("waits", flush=True)
while not asked.wait(0.01):
    pass
for line in sys.stdin:
    break
"""
COUNTS = """
import queue, sys
from service.processes.signals import on_signals

asked = queue.Queue()
on_signals(lambda: asked.put(None))
print("waits", flush=True)
for _ in range(2):
    asked.get(timeout=20)
    print("asked", flush=True)
"""


@pytest.mark.slow
def test_signals_in_the_midst_of_each_other_lock_nothing() -> None:
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            process.terminate()
        process.communicate(b"\n", timeout=20)
    assert process.returncode == 0


def test_each_that_comes_after_the_last_was_seen_to_is_acted_on() -> None:
    with subprocess.Popen([sys.executable, "-c", COUNTS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.stdout.readline() == b"asked\n"
        process.terminate()
        assert process.wait(20) == 0
