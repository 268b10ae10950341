"""SIGKILL to the API while callers start jobs: each idempotency key has one job, whoever repeats it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from service.jobs.records import Job
from tests.campaign.conftest import Figure
from tests.support.jobs import JobHarness
from tests.support.server import free_port, serving, wait_until
from tests.support.size import Size

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.real, pytest.mark.timeout(0)]

CALLERS = 4
FOREVER_S = 600.0
NO_QUOTA = ("--max-key-jobs", "0", "--max-total-jobs", "0")  # no worker runs, so that every job stays unfinished


class Caller(threading.Thread):
    """Starts jobs with keys of its own, and repeats a request until it is answered."""

    def __init__(self, url: str, file: str, number: int) -> None:
        super().__init__(daemon=True)
        self._url, self._file, self._number = url, file, number
        self.stopped = threading.Event()
        self.answers: dict[str, str] = {}

    def run(self) -> None:
        while not self.stopped.is_set():
            key = f"{self._number}-{len(self.answers)}"
            self.answers[key] = self.ask(key)

    def ask(self, key: str) -> str:
        """The job of a key."""
        body = {"model": "all-MiniLM-L6-v2", "training_file": self._file}
        deadline = time.monotonic() + FOREVER_S
        while time.monotonic() < deadline:
            try:
                answer = httpx.post(
                    f"{self._url}/v1/fine_tuning/jobs", json=body, headers={"idempotency-key": key}, timeout=30
                )
            except httpx.TransportError:  # the server was killed
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                return str(answer.json()["id"])
            assert answer.status_code == 503, answer.text
        raise AssertionError(f"no answer within {FOREVER_S:g} s")


def test_kills_lose_no_answer_and_start_nothing_twice(tmp_path: Path, size: Size, figure: Figure) -> None:
    kills, dice = size.of(2, 100), random.Random(7)
    harness = JobHarness(tmp_path)
    file, port = harness.upload(b'{"text": "a", "label": "b"}\n' * 10), free_port()
    callers = [Caller(f"http://127.0.0.1:{port}", file, number) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    for _ in range(kills):
        with serving(tmp_path, "--port", str(port), *NO_QUOTA) as served:
            before = _answered(callers)
            wait_until(lambda before=before: _answered(callers) > before, 60)  # type: ignore[misc]
            time.sleep(dice.uniform(0.0, 0.5))
            os.kill(served.process.pid, signal.SIGKILL)
            served.process.wait(300)  # the kernel ends it, as soon as a busy machine lets it
    for caller in callers:
        caller.stopped.set()
    with serving(tmp_path, "--port", str(port), *NO_QUOTA):
        for caller in callers:
            caller.join(60)
        repeated = {key: caller.ask(key) for caller in callers for key in caller.answers}
    answered = {key: job for caller in callers for key, job in caller.answers.items()}
    jobs = {job.id for job in _all(harness)}
    harness.close()
    figure(f"API: {kills} kills, {len(answered)} answers, {len(jobs) - len(answered)} jobs too many")
    assert len(answered) >= kills
    assert repeated == answered
    assert set(answered.values()) == jobs
    assert len(answered) == len(jobs)


def _answered(callers: list[Caller]) -> int:
    return sum(len(caller.answers) for caller in callers)


def _all(harness: JobHarness) -> list[Job]:
    return list(harness.store.page(None, 100_000)[0])
