"""`sonde up` and `sonde worker` as real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import wait_until

SONDE = (sys.executable, "-m", "service.cli")


@contextmanager
def sonde_up(home: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`sonde up` on a free port, and its URL."""
    command = [*SONDE, "up", "--port", "0", "--home", str(home), "--job-lease-s", "2", *flags]
    with (home / "up.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "ready on " in line, (home / "up.log").read_text()[-3000:]
        yield process, line.split("ready on ")[1].split(" ")[0]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@contextmanager
def sonde_worker(home: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `sonde worker` that takes jobs."""
    path = home / f"worker-{len(list(home.glob('worker-*.log')))}.log"
    with path.open("w") as log:
        process = subprocess.Popen([*SONDE, "worker", "--home", str(home), *flags], stderr=log)
    try:
        wait_until(lambda: "worker ready" in path.read_text() or process.poll() is not None, 60)
        assert process.poll() is None, path.read_text()
        yield process
    finally:
        process.terminate()
        process.wait(60)
