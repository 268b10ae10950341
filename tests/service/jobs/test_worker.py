"""Real worker processes over a fake trainer, on both databases: jobs end as they should, whatever is killed on the
way.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from models.registry.registry import Registry
from service.config import Settings
from service.jobs.database import Database
from service.jobs.leases import Leases
from service.jobs.queue import DbosEngine, Run
from service.jobs.worker import Worker
from tests.support.artifacts import own_encoder
from tests.support.databases import Postgres
from tests.support.jobs import Bench, WorkerProcess, exists, workers
from tests.support.server import free_port, metric, wait_until

pytestmark = pytest.mark.real


BOTH = pytest.mark.parametrize("bench", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)


# What depends on the database is told by a few tests; the others run on PostgreSQL when asked for.
@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    url = request.getfixturevalue("postgresql").new_database() if request.param == "postgresql" else ""
    made = Bench(tmp_path, url)
    yield made
    made.close()


@pytest.fixture
def worker(bench: Bench) -> Iterator[WorkerProcess]:
    with workers(bench) as running:
        yield running[0]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def manned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """With a worker, for tests that leave it as it is; what they train has names of their own."""
    url = request.getfixturevalue("postgresql").new_database() if request.param == "postgresql" else ""
    made = Bench(tmp_path_factory.mktemp("manned"), url)
    with contextlib.closing(made), workers(made):
        yield made


def test_a_worker_told_to_stop_while_it_starts_lets_go_of_queue_and_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(Settings(home=tmp_path))
    start = DbosEngine.start

    def stopped(self: DbosEngine, name: str, run: Run, poll_s: float) -> None:
        start(self, name, run, poll_s)
        worker.stop()

    monkeypatch.setattr(DbosEngine, "start", stopped)
    assert worker.work() == 0
    left = [
        thread.name
        for thread in threading.enumerate()
        if thread.name == "renew-lease" or thread.name.startswith("dbos-executor")
    ]
    assert left == []
    database = Database("", tmp_path)
    assert Leases(database, 30.0).workers() == set()
    database.close()


def promotions(bench: Bench, job: str) -> int:
    ledger = Registry(bench.home / "models").ledger(bench.get(job).name)
    return sum(line["action"] == "promote" and line["by"] == job for line in ledger)


def versions_of(bench: Bench, job: str) -> int:
    registry = Registry(bench.home / "models")
    name = bench.get(job).name
    return sum(registry.manifest(name, version).job == job for version in registry.versions(name))


@BOTH
def test_a_job_succeeds_and_its_model_is_promoted(bench: Bench, worker: WorkerProcess) -> None:
    job = bench.submit("support")
    done = bench.until(job)
    assert (done.status, done.fine_tuned_model, done.trained_tokens) == ("succeeded", "ft:fake:local:support:v1", 7)
    assert done.result is not None
    assert (done.result["decision"], done.result["why"]) == ("promoted", "nothing served under this name before")
    assert [event.data["step"] for event in bench.store.events(job, None, 100)[0][::-1] if event.data] == list(
        range(1, 11)
    )
    assert [one.step for one in bench.store.checkpoints(job, None, 100)[0]] == [10, 5]
    assert (promotions(bench, job), versions_of(bench, job)) == (1, 1)
    kept = ["incumbent.json", "job.json", "report.json", "report.md", "result.json", "trainer.log"]
    wait_until(lambda: sorted(path.name for path in (bench.home / "jobs" / job / "attempt-1").iterdir()) == kept)


def test_what_the_trainer_is_told_is_the_contract(manned: Bench) -> None:
    job = manned.submit(steps=1)
    manned.until(job)
    told = json.loads((manned.home / "jobs" / job / "attempt-1" / "job.json").read_text())
    assert Path(told.pop("training_file")).read_bytes() == b'{"text": "a", "label": "b"}\n'
    assert told == {
        "job": job,
        "model": "fake",
        "base": "fake",
        "keep_encoder": False,
        "task": "classification",
        "hyperparameters": {"steps": 1},
        "validation_file": None,
        "columns": {},
        "seed": 7,
        "device": "auto",
        "dtype": "auto",
        "threads": 0,
        "checkpoint": None,
        "cache": str(manned.home / "cache"),
        "incumbent": None,
        "incumbent_base": None,
        "incumbent_base_version": None,
    }


def test_a_tuned_encoder_is_found_in_the_registry_and_missed_there(manned: Bench, tmp_path: Path) -> None:
    own_encoder(Registry(manned.home / "models"), tmp_path, seed=1, name="ft:fake:local:tuned")
    job = manned.start(replace(manned.new(steps=1), spec="ft:fake:local:tuned:v1"))
    assert manned.until(job).status == "succeeded"
    told = json.loads((manned.home / "jobs" / job / "attempt-1" / "job.json").read_text())
    encoder = Registry(manned.home / "models").path("ft:fake:local:tuned", 1) / "encoder"
    assert (told["model"], told["keep_encoder"]) == (f"fake={encoder}", True)
    assert encoder.is_dir()
    gone = manned.until(manned.start(replace(manned.new(steps=1), spec="ft:fake:local:tuned:v2")))
    assert (gone.status, gone.error_code) == ("failed", "not_registered")


def test_a_worse_model_is_held_and_a_better_one_promoted(manned: Bench) -> None:
    outcomes = []
    for score in (0.9, 0.4, 0.6):
        # As where the first begins with the served model and the others with an encoder that was tuned on it.
        spec = "fake" if score == 0.9 else "fake=/tuned"
        job = manned.start(replace(manned.new("same", steps=1, score=score), spec=spec))
        done = manned.until(job)
        outcomes.append((done.fine_tuned_model, done.result and done.result["decision"]))
    assert outcomes == [
        ("ft:fake:local:same:v1", "promoted"),
        ("ft:fake:local:same:v2", "held"),
        ("ft:fake:local:same:v3", "promoted"),
    ]
    told = json.loads((manned.home / "jobs" / job / "attempt-1" / "job.json").read_text())
    assert (told["incumbent_base"], told["incumbent_base_version"]) == ("fake", "0123456789ab")
    current = Registry(manned.home / "models").current("ft:fake:local:same")
    assert current is not None
    assert current.version == 3


def test_a_job_of_another_task_is_held_and_never_compared(manned: Bench) -> None:
    assert manned.until(manned.submit("shared", steps=1)).status == "succeeded"
    job = manned.start(replace(manned.new("shared", steps=1, kind="series"), task="anomaly"))
    done = manned.until(job)
    assert done.result is not None
    assert (done.status, done.result["decision"]) == ("succeeded", "held")
    why = (
        "what serves now is a classification model, and this is an anomaly model of series: give the job another suffix"
    )
    assert done.result["why"].startswith(why)
    assert json.loads((manned.home / "jobs" / job / "attempt-1" / "job.json").read_text())["incumbent"] is None
    current = Registry(manned.home / "models").current("ft:fake:local:shared")
    assert current is not None
    assert current.version == 1


def test_a_failure_has_the_trainers_code_and_the_next_job_runs(manned: Bench) -> None:
    bad = manned.submit(fail_code="one_class", fail_message="expected two labels, got one", fail_param="training_file")
    good = manned.submit(steps=1)
    failed = manned.until(bad)
    assert (failed.status, failed.error_code, failed.error_param) == ("failed", "one_class", "training_file")
    assert manned.said(bad)[-1] == "expected two labels, got one"
    assert manned.until(good).status == "succeeded"


def test_a_fault_of_ours_ends_the_job_at_its_first_attempt_and_is_in_the_log(
    bench: Bench, worker: WorkerProcess
) -> None:
    failed = bench.until(bench.submit(fail_code="trainer_crashed", fail_message="IndexError: a slip"))
    assert (failed.status, failed.error_code, failed.attempt) == ("failed", "trainer_crashed", 1)
    assert "Traceback: IndexError: a slip" in worker.log.read_text()


def test_a_full_disk_fails_the_job_by_name(manned: Bench) -> None:
    assert manned.until(manned.submit(full=True)).error_code == "disk_full"


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """A disk of one page where a directory is; skipped where nobody may mount one."""
    directory.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.mark.parametrize("where", ["jobs", "models"])
def test_where_the_disk_is_full_the_job_says_so_and_the_next_one_runs(
    bench: Bench, worker: WorkerProcess, where: str
) -> None:
    """`jobs`: nothing can be prepared for the trainer; `models`: the result cannot be published."""
    with small_disk(bench.home / where):
        failed = bench.until(bench.submit("full", steps=1))
        assert (failed.status, failed.error_code) == ("failed", "disk_full")
        registry = Registry(bench.home / "models")
        assert (list(registry.versions(failed.name)), registry.current(failed.name)) == ([], None)
    assert bench.until(bench.submit("full", steps=1)).fine_tuned_model == "ft:fake:local:full:v1"


def test_a_file_that_is_gone_fails_the_job(manned: Bench) -> None:
    new = manned.new()
    manned.files.delete(new.training_file)
    manned.store.create(new, lambda job: {})
    failed = manned.until(new.id)
    assert (failed.error_code, failed.error_param) == ("file_not_found", "training_file")
    new = replace(manned.new(), validation_file=new.training_file)
    manned.store.create(new, lambda job: {})
    failed = manned.until(new.id)
    assert (failed.error_code, failed.error_param) == ("file_not_found", "validation_file")


def test_words_that_are_no_events_become_warnings_and_nan_becomes_null(manned: Bench) -> None:
    job = manned.submit(chatter=True, steps=1)
    assert manned.until(job).status == "succeeded"
    assert "the training process said: not json at all" in manned.said(job)
    assert {"step": 0, "loss": None} in [event.data for event in manned.store.events(job, None, 100)[0]]


def test_a_worker_tells_prometheus_what_it_does(bench: Bench) -> None:
    port = free_port()
    with workers(bench, 1, f"metrics_port={port}"):
        assert bench.until(bench.submit(steps=1)).status == "succeeded"
        assert bench.until(bench.submit(fail_code="one_class", fail_message="one", fail_param=None)).status == "failed"
        long = bench.submit(steps=10_000)
        bench.until_step(long, 1)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: metric(url, "sonde_jobs") == 3)
        assert [metric(url, name) for name in ("sonde_workers", "sonde_job_running", "sonde_attempts_total")] == [
            1,
            1,
            2,
        ]
        assert metric(url, "sonde_attempt_seconds_count") == 2
        assert time.time() - metric(url, "sonde_heartbeat_timestamp_seconds") < 3
        bench.request_control(long, "pause")
        bench.until(long, "paused")
        wait_until(lambda: metric(url, "sonde_attempts_total") == 3)
        assert metric(url, "sonde_job_running") == 0


@pytest.mark.parametrize("deaf", [False, True])
def test_cancelling_takes_less_than_five_seconds(manned: Bench, deaf: bool) -> None:
    job = manned.submit(steps=10_000, deaf=deaf)
    manned.until_step(job, 2)
    pid = manned.trace(job)[-1][2]
    began = time.monotonic()
    manned.request_control(job, "cancel")
    assert manned.until(job).status == "cancelled"
    assert time.monotonic() - began < 5
    assert not exists(pid)


def test_a_queued_job_is_cancelled_at_once_and_never_runs(bench: Bench) -> None:
    job = bench.submit()
    bench.request_control(job, "cancel")
    assert bench.get(job).status == "cancelled"
    with workers(bench):
        other = bench.submit(steps=1)
        assert bench.until(other).status == "succeeded"
    assert bench.trace(job) == []


def test_a_paused_job_goes_on_from_where_it_was(manned: Bench) -> None:
    job = manned.submit(steps=60, checkpoint_every=1000)
    manned.until_step(job, 10)
    manned.request_control(job, "pause")
    paused = manned.until(job, "paused")
    at = max(step for _, step, _ in manned.trace(job))
    other = manned.submit(steps=1)
    assert manned.until(other).status == "succeeded"  # the device is free meanwhile
    assert (manned.get(job).status, paused.crashes) == ("paused", 0)
    manned.resume(job)
    assert manned.until(job).status == "succeeded"
    assert [step for _, step, _ in manned.trace(job)] == list(range(1, 61))
    assert next(step for attempt, step, _ in manned.trace(job) if attempt == 2) == at + 1


def test_a_job_that_is_cancelled_while_it_is_paused_leaves_no_checkpoints(manned: Bench) -> None:
    job = manned.submit(steps=10_000, checkpoint_every=2)
    manned.until_step(job, 4)
    manned.request_control(job, "pause")
    manned.until(job, "paused")
    attempt = manned.home / "jobs" / job / "attempt-1"
    assert (attempt / "checkpoints").is_dir()
    manned.request_control(job, "cancel")
    wait_until(lambda: sorted(path.name for path in attempt.iterdir()) == ["incumbent.json", "job.json", "trainer.log"])
    assert manned.get(job).status == "cancelled"


def test_a_killed_trainer_is_resumed_at_its_newest_checkpoint(manned: Bench) -> None:
    job = manned.submit(steps=20, checkpoint_every=5, crash_at=13, crash_until=2)
    done = manned.until(job)
    assert (done.status, done.attempt) == ("succeeded", 2)
    assert [step for attempt, step, _ in manned.trace(job) if attempt == 2] == list(range(11, 21))


def test_a_trainer_that_always_dies_fails_the_job(manned: Bench) -> None:
    job = manned.submit(steps=20, checkpoint_every=100, crash_at=3)
    done = manned.until(job)
    assert (done.status, done.error_code, done.attempt) == ("failed", "trainer_crashed", 5)
    assert done.error_message == "The training process ended by signal 9 in attempt 5"


def test_a_stopped_workers_job_goes_on_with_the_next_worker(bench: Bench) -> None:
    with workers(bench) as running:
        job = bench.submit(steps=60, checkpoint_every=1000)
        bench.until_step(job, 5)
        assert running[0].stop() == 0
        queued = bench.get(job)
        assert (queued.status, queued.crashes) == ("queued", 0)
        running.append(WorkerProcess(bench).ready())
        assert bench.until(job).status == "succeeded"
    assert [step for _, step, _ in bench.trace(job)] == list(range(1, 61))


@BOTH
def test_the_trainer_dies_with_its_worker_and_another_goes_on(bench: Bench) -> None:
    with workers(bench) as running:
        job = bench.submit(steps=60, checkpoint_every=5)
        bench.until_step(job, 12)
        running[0].kill()
        pid = bench.trace(job)[-1][2]
        wait_until(lambda: not exists(pid), 2)
        running.append(WorkerProcess(bench).ready())
        done = bench.until(job)
    assert (done.status, done.attempt) == ("succeeded", 2)
    second = [step for attempt, step, _ in bench.trace(job) if attempt == 2]
    assert max(step for attempt, step, _ in bench.trace(job) if attempt == 1) - second[0] < 7
    assert (promotions(bench, job), versions_of(bench, job)) == (1, 1)


def test_a_job_of_a_dead_worker_is_cancelled_without_one(bench: Bench) -> None:
    with workers(bench) as running:
        job = bench.submit(steps=10_000)
        bench.until_step(job, 2)
        running[0].kill()
    wait_until(lambda: not bench.leases.workers(), 10)
    bench.request_control(job, "cancel")
    assert bench.get(job).status == "cancelled"


@BOTH
def test_a_worker_paused_past_its_lease_stops_its_trainer_and_writes_nothing(bench: Bench) -> None:
    with workers(bench) as running:
        job = bench.submit(steps=80, checkpoint_every=5, step_s=0.05)
        bench.until_step(job, 12)
        running[0].send(signal.SIGSTOP)
        zombie = bench.trace(job)[-1][2]
        os.kill(zombie, signal.SIGSTOP)
        running.append(WorkerProcess(bench).ready())
        wait_until(lambda: bench.get(job).attempt == 2, 60)
        os.kill(zombie, signal.SIGCONT)
        running[0].send(signal.SIGCONT)
        wait_until(lambda: not exists(zombie), 5)
        done = bench.until(job)
        after = bench.submit(steps=1)  # both are workers still
        assert bench.until(after).status == "succeeded"
    assert (done.status, done.attempt) == ("succeeded", 2)
    order = [event.attempt for event in bench.store.events(job, None, 10_000)[0][::-1]]
    assert order == sorted(order)
    assert (promotions(bench, job), versions_of(bench, job)) == (1, 1)


@BOTH
def test_two_workers_run_every_job_once(bench: Bench) -> None:
    with workers(bench, 2):
        ids = [bench.submit(steps=3, step_s=0.01) for _ in range(12)]
        done = [bench.until(job, timeout_s=60) for job in ids]
    assert [(job.status, job.attempt) for job in done] == [("succeeded", 1)] * 12
    assert all([step for _, step, _ in bench.trace(job)] == [1, 2, 3] for job in ids)


def test_a_job_that_was_never_queued_is_found(manned: Bench) -> None:
    new = manned.new(steps=1)
    manned.store.create(new, lambda job: {})  # and the service died here
    assert manned.until(new.id).status == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "away_s"), [("fast", 0.0), ("immediate", 4.0)], ids=["restarted", "away longer than the lease"]
)
def test_postgresql_goes_away_under_a_running_job(
    postgresql: Postgres, tmp_path: Path, mode: str, away_s: float
) -> None:
    with contextlib.closing(Bench(tmp_path, postgresql.new_database())) as bench:
        with workers(bench) as running:
            job = bench.submit(steps=100, checkpoint_every=5, step_s=0.05)
            bench.until_step(job, 12)
            with postgresql.away(mode):
                time.sleep(away_s)
            done = bench.until(job)
            assert bench.until(bench.submit(steps=1)).status == "succeeded"  # the same worker takes the next one
            assert running[0].running
        assert (done.status, done.attempt) == ("succeeded", 1 if away_s < 2 else 2), bench.said(job)
        assert (promotions(bench, job), versions_of(bench, job)) == (1, 1)
        second = [step for attempt, step, _ in bench.trace(job) if attempt == 2]
        assert not second or second[0] > 12
        if done.attempt == 1:
            assert [event.data["step"] for event in bench.store.events(job, None, 1000)[0][::-1] if event.data] == list(
                range(1, 101)
            )


@BOTH
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.long)])
def test_kills_at_random_points_lose_nothing(bench: Bench, kills: int) -> None:
    dice = random.Random(kills)
    with workers(bench, 2, "job_attempts=1000") as running:
        ids = [bench.submit(f"killed-{n}", steps=40, checkpoint_every=5, step_s=0.02) for n in range(kills // 3)]
        for _ in range(kills):
            time.sleep(dice.uniform(0.05, 1.0))
            if dice.random() < 0.5:
                at = dice.randrange(2)
                running[at].kill()
                running[at] = WorkerProcess(bench, "job_attempts=1000")
            else:
                pids = [pid for job in ids for _, _, pid in bench.trace(job)[-1:] if exists(pid)]
                if pids:
                    os.kill(dice.choice(pids), signal.SIGKILL)
        done = [bench.until(job, timeout_s=600) for job in ids]
    assert {job.status for job in done} == {"succeeded"}
    assert {(promotions(bench, job), versions_of(bench, job)) for job in ids} == {(1, 1)}
    for job in ids:
        lost = [
            before - after + 1
            for (a, before, _), (b, after, _) in zip(bench.trace(job), bench.trace(job)[1:], strict=False)
            if a != b
        ]
        assert max(lost, default=0) <= 5, "one interval"
