"""`sonde up` and `sonde worker` as real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.support.jobs import exists
from tests.support.server import Served, metric, wait_until

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


def output_of(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> str:
    """What a command of the documentation prints, with more variables than those of this process."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def embed(client: httpx.Client, *texts: str) -> httpx.Response:
    """Ask the default model for vectors."""
    return client.post("/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": list(texts)})


def require_clean_stop(served: Served, processes: Iterable[int]) -> None:
    """SIGTERM amid four requests answers them, ends all `processes` and leaves no traceback in the log.

    The requests take a tiny model half a second. On a busy machine all may be answered before they are seen.
    """
    texts = [f"{number} where is what I ordered two weeks ago?" * 4 for number in range(300)]
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        clients = [stack.enter_context(httpx.Client(base_url=served.url, timeout=60)) for _ in range(4)]
        seen = False
        for _ in range(20):
            waiting = [pool.submit(embed, client, *texts) for client in clients]
            while not seen and not all(answer.done() for answer in waiting):
                seen = metric(served.url, "sonde_requests_in_flight") >= 5  # with the one that asks
            if seen:
                break
        assert seen, "four requests were never seen at once"
        assert served.stop() == 0
        assert [answer.result().status_code for answer in waiting] == [200] * 4
    assert not any(exists(pid) for pid in processes)
    assert "Traceback" not in (served.home / "server.log").read_text()


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _read(task / "children").split()]


def servers(pid: int) -> dict[str, int]:
    """The server processes that a supervisor has started, by name; the process that they are forked from is none."""
    names = {_read(Path(f"/proc/{child}/comm")).strip(): child for child in children(pid)}
    return {name.removeprefix("sonde-"): child for name, child in names.items() if name.startswith("sonde-")}


def resident_mb(pid: int | str = "self") -> float:
    """The megabytes of a process in memory; 0 for one that has ended."""
    return _status_mb(pid, "VmRSS")


def peak_mb(pid: int | str = "self") -> float:
    """The most megabytes of a process in memory since `reset_peak`."""
    return _status_mb(pid, "VmHWM")


def reset_peak(pid: int | str = "self") -> None:
    """Measure the peak of a process's memory from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_mb(pid: int | str, name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", _read(Path(f"/proc/{pid}/status")))
    return int(found[1]) / 1024 if found else 0.0


def open_files(pid: int) -> int:
    """The number of a process's open files and sockets."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def shifted_clock(file: Path) -> Iterator[Callable[[float], None]]:
    """Let `time.time` of this process follow `file` (`follow_clock`), and yield a function that sets the shift."""
    real = time.time

    def set_clock(shift_s: float) -> None:
        (new := file.with_suffix(".new")).write_text(str(shift_s))
        new.replace(file)

    set_clock(0.0)
    follow_clock(file)
    try:
        yield set_clock
    finally:
        time.time = real


def follow_clock(file: Path) -> None:
    """Shift `time.time` of this process by the seconds in a file. The monotonic clock stays as it is."""
    real = time.time
    time.time = lambda: real() + float(file.read_text())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # the process has ended
        return ""
