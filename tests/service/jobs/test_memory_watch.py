"""The memory of training processes: above its limit a job fails for certain, once, and with what to do."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.config import Settings
from service.jobs import training_process
from service.jobs.memory_watch import MemoryWatch, kernel_oom_kills, trainer_limit_bytes
from service.jobs.worker import Worker
from tests.support.jobs import JobHarness, workers
from tests.support.server import wait_until

MIB = 1 << 20
FAKE_TRAINER = (sys.executable, "-m", "tests.fakes.trainer")
HOARD = "x = bytearray(b'x') * ({} << 20); print('hoards', flush=True); input()"
CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@pytest.mark.parametrize("command", [python(HOARD.format(300)), python(CHILD, HOARD.format(300))], ids=["own", "child"])
def test_a_process_above_its_limit_is_killed_with_its_children(command: list[str]) -> None:
    with running(*command) as process:
        watch = MemoryWatch(process.pid, 200 * MIB, process.kill)
        wait_until(watch.exceeded.is_set, 20)
        assert process.wait(10) == -9
        watch.end()


def test_a_process_below_its_limit_goes_on() -> None:
    with running(*python(HOARD.format(50))) as process:
        watch = MemoryWatch(process.pid, 200 * MIB, process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == b"hoards\n"
        time.sleep(0.3)
        watch.end()
        assert process.poll() is None
        assert not watch.exceeded.is_set()


def test_a_watch_ends_though_the_process_has() -> None:
    with running(*python("pass")) as process:
        watch = MemoryWatch(process.pid, 1 << 40, process.kill)
        process.wait(10)
        time.sleep(0.2)
        watch.end()
        assert not watch.exceeded.is_set()


def test_without_a_setting_most_of_the_memory_is_the_limit() -> None:
    assert trainer_limit_bytes(5) == 5
    assert 10 * MIB < trainer_limit_bytes(0) < 1 << 50


@pytest.mark.real
def test_a_job_that_takes_too_much_memory_fails_once_and_the_worker_goes_on(harness: JobHarness) -> None:
    with workers(harness, 1, "max_trainer_memory=400MiB"):  # a fork of the tests' modules has 200 at its start
        greedy, modest = harness.submit(hoard_mb=500, steps=1000), harness.submit(hoard_mb=10)
        failed = harness.until(greedy)
        assert (failed.status, failed.error_code, failed.attempt) == ("failed", "out_of_memory", 1)
        assert failed.error_message == (
            "the training process may take 419,430,400 bytes of memory and took more: train on fewer or shorter rows, "
            "set a smaller batch_size, or raise the worker's --max-trainer-memory"
        )
        assert harness.until(modest).status == "succeeded"


@pytest.mark.slow
def test_a_job_that_the_kernel_kills_for_memory_is_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = itertools.count()
    monkeypatch.setattr(training_process, "kernel_oom_kills", lambda: next(kills))
    harness = JobHarness(tmp_path)
    job = harness.submit(steps=3, crash_at=2)
    settings = Settings(home=tmp_path, job_poll_s=0.05, job_lease_s=60)
    worker = Worker(settings, command=FAKE_TRAINER, check=lambda path, spec: None)
    working = threading.Thread(target=worker.work)
    working.start()
    failed = harness.until(job)
    worker.stop()
    working.join(30)
    assert (failed.status, failed.error_code, failed.attempt) == ("failed", "out_of_memory", 2)
    assert failed.error_message is not None
    assert "The kernel killed the training process in attempt 2, because no memory was left" in failed.error_message
    harness.close()


@pytest.mark.parametrize(("content", "kills"), [("pgfault 7\noom_kill 3\n", 3), ("pgfault 7\n", 0), (None, 0)])
def test_the_kernels_kills_are_counted_where_it_tells(tmp_path: Path, content: str | None, kills: int) -> None:
    if content is not None:
        (tmp_path / "vmstat").write_text(content)
    assert kernel_oom_kills(tmp_path / "vmstat") == kills
