"""Jobs without HTTP, and real worker processes, on either database."""

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

import pytest

from models.registry.registry import Registry
from service.jobs.database import Database
from service.jobs.feedback import FeedbackStore
from service.jobs.files import Files
from service.jobs.leases import WorkerLeases
from service.jobs.records import TERMINAL, Control, Job, NewJob
from service.jobs.store import JobStore
from tests.support.server import wait_until

# For tests that depend on the database; the others run on PostgreSQL only with `-m long`.
BOTH_DATABASES = pytest.mark.parametrize(
    "harness", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)

# A flag of workers for tests in which none may lose its lease, however busy the machine is.
LONG_LEASE = "job_lease_s=30"


class JobHarness:
    """What the API does with jobs, without HTTP."""

    def __init__(self, home: Path, url: str = "", lease_s: float = 2.0) -> None:
        self.home = home
        self.url = url
        self.database = Database(url, home)
        self.store = JobStore(self.database, home, lease_s)
        self.leases = WorkerLeases(self.database, lease_s)
        self.files = Files(self.database, home, 10**6)
        self.feedback = FeedbackStore(self.database)
        self.store.migrate()

    def upload(self, content: bytes = b'{"text": "a", "label": "b"}\n', name: str = "rows.jsonl") -> str:
        with self.files.receive() as incoming:
            incoming.write(content)
            return self.files.keep(incoming, name, "fine-tune").id

    def new(self, suffix: str = "", **hyperparameters: Any) -> NewJob:
        job = "ftjob-" + secrets.token_hex(6)
        name = f"ft:fake:local:{suffix or job}"
        return NewJob(
            id=job,
            base="fake",
            base_spec="fake",
            task="classification",
            name=name,
            seed=7,
            training_file=self.upload(),
            hyperparameters=hyperparameters,
        )

    def submit(self, suffix: str = "", **hyperparameters: Any) -> str:
        return self.start(self.new(suffix, **hyperparameters))

    def start(self, new: NewJob) -> str:
        self.store.create(new, lambda job: {})
        return new.id

    def get(self, job: str) -> Job:
        return self.store.get(job)

    def request_control(self, job: str, control: Control) -> None:
        self.store.request_control(job, control)

    def resume(self, job: str) -> None:
        self.store.resume(job)

    def until(self, job: str, *statuses: str, timeout_s: float = 90.0) -> Job:
        """Wait until a job has one of the statuses, by default a terminal one."""
        wanted = set(statuses) or TERMINAL
        try:
            wait_until(lambda: self.get(job).status in wanted, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{job} is {self.get(job)}, expected {wanted}: {self.messages(job)}") from error
        return self.get(job)

    def until_step(self, job: str, step: int, timeout_s: float = 30.0) -> None:
        wait_until(lambda: any(one[1] >= step for one in self.trace(job)), timeout_s)

    def messages(self, job: str) -> list[str]:
        """A job's messages, oldest first."""
        return [event.message for event in self.store.events(job, None, 10_000)[0][::-1] if event.type == "message"]

    def steps(self, job: str) -> list[int]:
        """The steps that metrics events report, oldest first."""
        return [event.data["step"] for event in self.store.events(job, None, 10_000)[0][::-1] if event.data]

    def trace(self, job: str) -> list[tuple[int, int, int]]:
        """The attempt, step and process id of each training step."""
        path = self.home / "jobs" / job / "trace"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(a), int(b), int(c)) for a, b, c in (line.split() for line in lines if line.count(" ") == 2)]

    def promotions(self, job: str) -> int:
        """The number of promotions by a job."""
        ledger = Registry(self.home / "models").ledger(self.get(job).name)
        return sum(line["action"] == "promote" and line["by"] == job for line in ledger)

    def versions(self, job: str) -> int:
        """The number of versions that a job published."""
        registry, name = Registry(self.home / "models"), self.get(job).name
        return sum(registry.manifest(name, version).job == job for version in registry.versions(name))

    def close(self) -> None:
        self.database.close()


class WorkerProcess:
    """A worker process."""

    def __init__(self, harness: JobHarness, *flags: str) -> None:
        self.log = harness.home / f"worker-{secrets.token_hex(4)}.log"
        command = [sys.executable, "-m", "tests.support.worker_process", str(harness.home), harness.url, *flags]
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
def workers(harness: JobHarness, count: int = 1, *flags: str) -> Iterator[list[WorkerProcess]]:
    """Running workers; ends those that the test adds to the list as well."""
    running = [WorkerProcess(harness, *flags) for _ in range(count)]
    try:
        for worker in list(running):
            worker.ready()
        yield running
    finally:
        for worker in running:
            worker.end()


def exists(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def new_job(number: int = 1, **more: Any) -> NewJob:
    given = {"id": f"ftjob-{number}", "base": "fake", "base_spec": "fake", "task": "classification", "seed": 0}
    return NewJob(**{**given, "name": "ft:fake:local:x", "training_file": "file-1", **more})


def render_id(job: Job) -> dict[str, Any]:
    """The answer to a caller, in short."""
    return {"id": job.id, "status": job.status}


def create_job(store: JobStore, number: int = 1, **more: Any) -> Job:
    store.create(new_job(number, **more), render_id)
    return store.get(f"ftjob-{number}")


def claim_job(store: JobStore, leases: WorkerLeases, max_crashes: int = 3) -> Job:
    claimed = store.claim(leases.open("w"), max_crashes)
    assert claimed is not None
    return claimed
