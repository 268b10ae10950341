"""Fixtures for tests of jobs: a store on either database, files, and real worker processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.jobs.database import Database
from service.jobs.feedback import Feedback
from service.jobs.files import Files
from service.jobs.leases import Leases
from service.jobs.queue import DbosEngine
from service.jobs.records import TERMINAL, Job, NewJob
from service.jobs.store import Store
from tests.support.server import wait_until


class Bench:
    """What a service knows of jobs, without the HTTP."""

    def __init__(self, home: Path, url: str = "", lease_s: float = 2.0) -> None:
        self.home = home
        self.url = url
        self.database = Database(url, home)
        self.store = Store(self.database, home, lease_s)
        self.leases = Leases(self.database, lease_s)
        self.files = Files(self.database, home, 10**6)
        self.feedback = Feedback(self.database)
        self.engine = DbosEngine(url, home)
        self.store.migrate()
        self.engine.migrate()

    def upload(self, content: bytes = b'{"text": "a", "label": "b"}\n', name: str = "rows.jsonl") -> str:
        with self.files.receive() as incoming:
            incoming.write(content)
            return self.files.keep(incoming, name, "fine-tune").id

    def new(self, suffix: str = "", **hyperparameters: Any) -> NewJob:
        job = "ftjob-" + secrets.token_hex(6)
        name = f"ft:fake:local:{suffix or job}"
        return NewJob(job, "fake", "fake", "classification", name, 7, self.upload(), hyperparameters=hyperparameters)

    def submit(self, suffix: str = "", **hyperparameters: Any) -> str:
        return self.start(self.new(suffix, **hyperparameters))

    def start(self, new: NewJob) -> str:
        self.store.create(new, lambda job: {})
        self.engine.submit(new.id, 1)
        return new.id

    def get(self, job: str) -> Job:
        return self.store.get(job)

    def request_control(self, job: str, request_control: Any) -> None:
        self.store.request_control(job, request_control)

    def resume(self, job: str) -> None:
        self.engine.submit(job, self.store.resume(job).dispatch)

    def until(self, job: str, *statuses: str, timeout_s: float = 90.0) -> Job:
        """Wait until a job is in one of the statuses (in a last one, without)."""
        wanted = set(statuses) or TERMINAL
        try:
            wait_until(lambda: self.get(job).status in wanted, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{job} is {self.get(job)}, expected {wanted}: {self.said(job)}") from error
        return self.get(job)

    def until_step(self, job: str, step: int, timeout_s: float = 30.0) -> None:
        wait_until(lambda: any(one[1] >= step for one in self.trace(job)), timeout_s)

    def said(self, job: str) -> list[str]:
        """Messages, oldest first."""
        return [event.message for event in self.store.events(job, None, 10_000)[0][::-1] if event.type == "message"]

    def trace(self, job: str) -> list[tuple[int, int, int]]:
        """Attempt, step and process of each step that was trained."""
        path = self.home / "jobs" / job / "trace"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(a), int(b), int(c)) for a, b, c in (line.split() for line in lines if line.count(" ") == 2)]

    def close(self) -> None:
        self.engine.close()
        self.database.close()


class WorkerProcess:
    """A real worker."""

    def __init__(self, bench: Bench, *flags: str) -> None:
        self.log = bench.home / f"worker-{secrets.token_hex(4)}.log"
        command = [sys.executable, "-m", "tests.support.worker_process", str(bench.home), bench.url, *flags]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        self.pid = self._process.pid

    def ready(self) -> WorkerProcess:
        wait_until(lambda: "worker ready" in self.log.read_text() or self._process.poll() is not None, 90)
        assert self._process.poll() is None, self.log.read_text()
        return self

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self, timeout_s: float = 30.0) -> int:
        self._process.terminate()
        return self._process.wait(timeout_s)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGCONT)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()


@contextlib.contextmanager
def workers(bench: Bench, count: int = 1, *flags: str) -> Iterator[list[WorkerProcess]]:
    """Running workers; whatever was added to the list is ended as well."""
    running = [WorkerProcess(bench, *flags) for _ in range(count)]
    try:
        for worker in list(running):
            worker.ready()
        yield running
    finally:
        for worker in running:
            worker.end()


def exists(pid: int) -> bool:
    """Whether a process runs (a dead one that nobody has waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
