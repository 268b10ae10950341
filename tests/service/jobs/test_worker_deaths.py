"""Jobs go on when training processes, workers or the database die: none is lost, none is done twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from itertools import pairwise
from pathlib import Path

import pytest

from models.registry.names import directory_of
from tests.support.artifacts import tree
from tests.support.databases import Postgres
from tests.support.jobs import BOTH_DATABASES, LONG_LEASE, JobHarness, WorkerProcess, exists, workers
from tests.support.server import wait_until

pytestmark = pytest.mark.real


def test_a_killed_trainer_is_resumed_at_its_newest_checkpoint(shared: JobHarness) -> None:
    job = shared.submit(steps=20, checkpoint_every=5, crash_at=13, crash_until=2)
    done = shared.until(job)
    assert (done.status, done.attempt) == ("succeeded", 2)
    assert [step for attempt, step, _ in shared.trace(job) if attempt == 2] == list(range(11, 21))


def test_a_trainer_that_always_dies_fails_the_job(shared: JobHarness) -> None:
    job = shared.submit(steps=20, checkpoint_every=100, crash_at=3)
    done = shared.until(job)
    assert (done.status, done.error_code, done.attempt) == ("failed", "trainer_crashed", 5)
    assert done.error_message == "The training process ended by signal 9 in attempt 5"


def test_a_stopped_workers_job_goes_on_with_the_next_worker(harness: JobHarness) -> None:
    with workers(harness, 1, LONG_LEASE) as running:
        job = harness.submit(steps=60, checkpoint_every=1000)
        harness.until_step(job, 5)
        assert running[0].stop() == 0
        queued = harness.get(job)
        assert (queued.status, queued.crashes) == ("queued", 0)
        running.append(WorkerProcess(harness, LONG_LEASE).ready())
        assert harness.until(job).status == "succeeded"
    assert [step for _, step, _ in harness.trace(job)] == list(range(1, 61))


def freeze(worker: WorkerProcess, harness: JobHarness) -> None:
    """Stop a worker outside a transaction: one that is stopped inside keeps SQLite's lock,"""
    worker.send(signal.SIGSTOP)
    while harness.database.embedded and not can_write(harness):
        worker.send(signal.SIGCONT)
        time.sleep(0.01)
        worker.send(signal.SIGSTOP)


def can_write(harness: JobHarness) -> bool:
    with contextlib.closing(
        sqlite3.connect(harness.home / "sonde.sqlite", timeout=0.2, isolation_level=None)
    ) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


@BOTH_DATABASES
def test_the_trainer_dies_with_its_worker_and_another_goes_on(harness: JobHarness) -> None:
    with workers(harness) as running:
        job = harness.submit(steps=60, checkpoint_every=5)
        harness.until_step(job, 12)
        running[0].kill()
        pid = harness.trace(job)[-1][2]
        wait_until(lambda: not exists(pid), 2)
        running.append(WorkerProcess(harness).ready())
        done = harness.until(job)
    assert (done.status, done.attempt) == ("succeeded", 2)
    second = [step for attempt, step, _ in harness.trace(job) if attempt == 2]
    assert max(step for attempt, step, _ in harness.trace(job) if attempt == 1) - second[0] < 7
    assert (harness.promotions(job), harness.versions(job)) == (1, 1)


def test_a_job_of_a_dead_worker_is_cancelled_without_one(harness: JobHarness) -> None:
    with workers(harness) as running:
        job = harness.submit(steps=10_000)
        harness.until_step(job, 2)
        running[0].kill()
    wait_until(lambda: not harness.leases.workers(), 10)
    harness.request_control(job, "cancel")
    assert harness.get(job).status == "cancelled"


@BOTH_DATABASES
def test_a_worker_paused_past_its_lease_stops_its_trainer_and_writes_nothing(harness: JobHarness) -> None:
    with workers(harness) as running:
        job = harness.submit(steps=80, checkpoint_every=5, step_s=0.05)
        harness.until_step(job, 12)
        freeze(running[0], harness)
        zombie = harness.trace(job)[-1][2]
        os.kill(zombie, signal.SIGSTOP)
        running.append(WorkerProcess(harness).ready())
        wait_until(lambda: harness.get(job).attempt == 2, 60)
        os.kill(zombie, signal.SIGCONT)
        running[0].send(signal.SIGCONT)
        wait_until(lambda: not exists(zombie), 5)
        done = harness.until(job)
        after = harness.submit(steps=1)  # both are workers still
        assert harness.until(after).status == "succeeded"
    assert (done.status, done.attempt) == ("succeeded", 2)
    order = [event.attempt for event in harness.store.events(job, None, 10_000)[0][::-1]]
    assert order == sorted(order)
    assert (harness.promotions(job), harness.versions(job)) == (1, 1)


def test_a_worker_frozen_while_it_publishes_holds_no_name_and_writes_nothing(harness: JobHarness) -> None:
    gate, models = harness.home / "gate", harness.home / "models"
    with workers(harness, 1, f"publication_gate={gate}") as running:
        job = harness.submit(steps=1)
        wait_until(gate.with_suffix(".reached").exists, 60)
        freeze(running[0], harness)
        running.append(WorkerProcess(harness).ready())
        done = harness.until(job, timeout_s=30)
        assert (done.status, done.attempt, harness.promotions(job), harness.versions(job)) == ("succeeded", 2, 1, 1)
        published = tree(models)
        gate.touch()
        running[0].send(signal.SIGCONT)
        running[1].stop()
        after = harness.submit("after", steps=1)  # the woken worker gives its attempt up, and takes the next job
        assert harness.until(after).status == "succeeded"
    changed = {Path(path).parts[0] for path, _ in tree(models).items() ^ published.items()}
    assert changed == {directory_of(harness.get(after).name)}


@BOTH_DATABASES
def test_two_workers_run_every_job_once(harness: JobHarness) -> None:
    with workers(harness, 2, LONG_LEASE):
        ids = [harness.submit(steps=3, step_s=0.01) for _ in range(6)]
        done = [harness.until(job, timeout_s=60) for job in ids]
    assert [(job.status, job.attempt) for job in done] == [("succeeded", 1)] * 6
    assert all([step for _, step, _ in harness.trace(job)] == [1, 2, 3] for job in ids)


def test_a_job_whose_caller_got_no_answer_runs(shared: JobHarness) -> None:
    new = shared.new(steps=1)
    shared.store.create(new, lambda job: {})  # and the API process died here
    assert shared.until(new.id).status == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "away_s"), [("fast", 0.0), ("immediate", 4.0)], ids=["restarted", "away longer than the lease"]
)
def test_postgresql_goes_away_under_a_running_job(
    postgresql: Postgres, tmp_path: Path, mode: str, away_s: float
) -> None:
    flags = [LONG_LEASE] if mode == "fast" else []
    with contextlib.closing(JobHarness(tmp_path, postgresql.new_database())) as harness:
        with workers(harness, 1, *flags) as running:
            job = harness.submit(steps=50, checkpoint_every=3, step_s=0.1)
            harness.until_step(job, 6)
            with postgresql.outage(mode):
                time.sleep(away_s)
            done = harness.until(job)
            assert harness.until(harness.submit(steps=1)).status == "succeeded"  # the same worker takes the next one
            assert running[0].running
        assert (done.status, done.attempt) == ("succeeded", 1 if away_s < 2 else 2), harness.messages(job)
        assert (harness.promotions(job), harness.versions(job)) == (1, 1)
        second = [step for attempt, step, _ in harness.trace(job) if attempt == 2]
        assert not second or second[0] > 6
        if done.attempt == 1:
            assert [
                event.data["step"] for event in harness.store.events(job, None, 1000)[0][::-1] if event.data
            ] == list(range(1, 51))


@BOTH_DATABASES
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.long)])
def test_kills_at_random_points_lose_nothing(harness: JobHarness, kills: int) -> None:
    """Each kill hits a training process or its worker while it trains, so that every one interrupts an attempt."""
    dice = random.Random(kills)

    def training() -> list[int]:
        last = [harness.trace(job)[-1:] for job in ids]
        return [pid for trace in last for _, _, pid in trace if exists(pid)]

    with workers(harness, 2, "job_attempts=1000") as running:
        ids = [harness.submit(f"killed-{n}", steps=100, checkpoint_every=5, step_s=0.06) for n in range(kills // 3 + 1)]
        for _ in range(kills):
            wait_until(lambda: bool(training()), 60)
            time.sleep(dice.uniform(0.0, 0.5))
            if dice.random() < 0.5:
                at = dice.randrange(2)
                running[at].kill()
                running[at] = WorkerProcess(harness, "job_attempts=1000")
            elif pids := training():
                os.kill(dice.choice(pids), signal.SIGKILL)
        done = [harness.until(job, timeout_s=600) for job in ids]
    assert {job.status for job in done} == {"succeeded"}
    assert sum(job.attempt for job in done) > len(ids) + kills // 4, "kills that interrupted an attempt"
    assert {(harness.promotions(job), harness.versions(job)) for job in ids} == {(1, 1)}
    for job in ids:
        trace = harness.trace(job)
        lost = [before - after + 1 for (a, before, _), (b, after, _) in pairwise(trace) if a != b]
        assert max(lost, default=0) <= 5, "one interval"
