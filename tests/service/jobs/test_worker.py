"""Worker processes with a fake trainer: what becomes of a job, and what callers may ask of it meanwhile."""

from __future__ import annotations

import contextlib
import json
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
from service.jobs.leases import LeaseRenewer, WorkerLeases
from service.jobs.worker import Worker
from tests.support.control_characters import HOSTILE, forbidden
from tests.support.jobs import BOTH_DATABASES, JobHarness, WorkerProcess, exists, workers
from tests.support.server import free_port, metric, wait_until
from tests.support.trained_models import own_encoder

pytestmark = pytest.mark.real


def test_a_worker_told_to_stop_while_it_starts_ends_its_threads_and_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(Settings(home=tmp_path))
    open_lease = LeaseRenewer.open

    def open_and_stop(self: LeaseRenewer) -> None:
        open_lease(self)
        worker.stop()

    monkeypatch.setattr(LeaseRenewer, "open", open_and_stop)
    assert worker.work() == 0
    assert [thread.name for thread in threading.enumerate() if thread.name in ("renew-lease", "run-jobs")] == []
    database = Database("", tmp_path)
    assert WorkerLeases(database, 30.0).workers() == set()
    database.close()


def test_a_worker_waits_for_a_home_that_cannot_be_made_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    worker, waits = Worker(Settings(home=tmp_path / "file" / "home")), list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            worker.stop()

    monkeypatch.setattr(worker.stopping, "wait", wait)
    assert worker.work() == 0
    told = "waiting for the database, and trying again: the database of jobs does not answer"
    assert (len(waits), caplog.messages.count(told)) == (3, 1)


@BOTH_DATABASES
def test_a_job_succeeds_and_its_model_is_promoted(harness: JobHarness, worker: WorkerProcess) -> None:
    job = harness.submit("support")
    done = harness.until(job)
    assert (done.status, done.fine_tuned_model, done.trained_tokens) == ("succeeded", "ft:fake:local:support:v1", 7)
    assert done.result is not None
    assert (done.result["decision"], done.result["why"]) == ("promoted", "nothing served under this name before")
    assert harness.steps(job) == list(range(1, 11))
    assert [one.step for one in harness.store.checkpoints(job, None, 100)[0]] == [10, 5]
    assert (harness.promotions(job), harness.versions(job)) == (1, 1)
    kept = ["incumbent.json", "job.json", "report.json", "report.md", "result.json", "trainer.log"]
    wait_until(lambda: sorted(path.name for path in (harness.home / "jobs" / job / "attempt-1").iterdir()) == kept)


def test_job_json_is_the_contract_with_the_training_process(shared: JobHarness) -> None:
    job = shared.submit(steps=1)
    shared.until(job)
    written = json.loads((shared.home / "jobs" / job / "attempt-1" / "job.json").read_text())
    assert Path(written.pop("training_file")).read_bytes() == b'{"text": "a", "label": "b"}\n'
    assert written == {
        "job": job,
        "base_spec": "fake",
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
        "cache": str(shared.home / "cache"),
        "autotune_file": str(shared.home / "races.json"),
        "incumbent": None,
        "incumbent_base": None,
        "incumbent_base_version": None,
        "bound": None,
    }


def test_a_tuned_encoder_is_found_in_the_registry_and_missed_there(shared: JobHarness, tmp_path: Path) -> None:
    own_encoder(Registry(shared.home / "models"), tmp_path, seed=1, name="ft:fake:local:tuned")
    job = shared.start(replace(shared.new(steps=1), base_spec="ft:fake:local:tuned:v1"))
    assert shared.until(job).status == "succeeded"
    written = json.loads((shared.home / "jobs" / job / "attempt-1" / "job.json").read_text())
    encoder = Registry(shared.home / "models").path("ft:fake:local:tuned", 1) / "encoder"
    assert (written["base_spec"], written["keep_encoder"]) == (f"fake={encoder}", True)
    assert encoder.is_dir()
    gone = shared.until(shared.start(replace(shared.new(steps=1), base_spec="ft:fake:local:tuned:v2")))
    assert (gone.status, gone.error_code) == ("failed", "not_registered")


def test_a_worse_model_is_held_and_a_better_one_promoted(shared: JobHarness) -> None:
    outcomes = []
    for score in (0.9, 0.4, 0.6):
        # As where the first begins with the served model and the others with an encoder that was tuned on it.
        spec = "fake" if score == 0.9 else "fake=/tuned"
        job = shared.start(replace(shared.new("same", steps=1, score=score), base_spec=spec))
        done = shared.until(job)
        outcomes.append((done.fine_tuned_model, done.result and done.result["decision"]))
    assert outcomes == [
        ("ft:fake:local:same:v1", "promoted"),
        ("ft:fake:local:same:v2", "held"),
        ("ft:fake:local:same:v3", "promoted"),
    ]
    written = json.loads((shared.home / "jobs" / job / "attempt-1" / "job.json").read_text())
    assert (written["incumbent_base"], written["incumbent_base_version"]) == ("fake", "0123456789ab")
    current = Registry(shared.home / "models").current("ft:fake:local:same")
    assert current is not None
    assert current.version == 3


def test_a_job_of_another_task_is_held_and_never_compared(shared: JobHarness) -> None:
    assert shared.until(shared.submit("shared", steps=1)).status == "succeeded"
    job = shared.start(replace(shared.new("shared", steps=1, kind="series"), task="anomaly"))
    done = shared.until(job)
    assert done.result is not None
    assert (done.status, done.result["decision"]) == ("succeeded", "held")
    why = (
        "what serves now is a classification model, and this is an anomaly model of series: give the job another suffix"
    )
    assert done.result["why"].startswith(why)
    assert json.loads((shared.home / "jobs" / job / "attempt-1" / "job.json").read_text())["incumbent"] is None
    current = Registry(shared.home / "models").current("ft:fake:local:shared")
    assert current is not None
    assert current.version == 1


def test_a_failure_has_the_trainers_code_and_the_next_job_runs(shared: JobHarness) -> None:
    bad = shared.submit(fail_code="one_class", fail_message="expected two labels, got one", fail_param="training_file")
    good = shared.submit(steps=1)
    failed = shared.until(bad)
    assert (failed.status, failed.error_code, failed.error_param) == ("failed", "one_class", "training_file")
    assert shared.messages(bad)[-1] == "expected two labels, got one"
    assert shared.until(good).status == "succeeded"


def test_a_bug_in_the_trainer_fails_the_job_at_its_first_attempt_and_is_logged(
    harness: JobHarness, worker: WorkerProcess
) -> None:
    failed = harness.until(harness.submit(fail_code="trainer_crashed", fail_message="IndexError: a slip"))
    assert (failed.status, failed.error_code, failed.attempt) == ("failed", "trainer_crashed", 1)
    assert "Traceback: IndexError: a slip" in worker.log.read_text()


def test_a_full_disk_fails_the_job_by_name(shared: JobHarness) -> None:
    assert shared.until(shared.submit(full=True)).error_code == "disk_full"


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """A disk of one page at a directory. Skips the test where the user may not mount one."""
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
    harness: JobHarness, worker: WorkerProcess, where: str
) -> None:
    """`jobs`: nothing can be prepared for the trainer; `models`: the result cannot be published."""
    with small_disk(harness.home / where):
        failed = harness.until(harness.submit("full", steps=1))
        assert (failed.status, failed.error_code) == ("failed", "disk_full")
        registry = Registry(harness.home / "models")
        assert (list(registry.versions(failed.name)), registry.current(failed.name)) == ([], None)
    assert harness.until(harness.submit("full", steps=1)).fine_tuned_model == "ft:fake:local:full:v1"


def test_a_file_that_is_gone_fails_the_job(shared: JobHarness) -> None:
    new = shared.new()
    shared.files.delete(new.training_file)
    shared.store.create(new, lambda job: {})
    failed = shared.until(new.id)
    assert (failed.error_code, failed.error_param) == ("file_not_found", "training_file")
    new = replace(shared.new(), validation_file=new.training_file)
    shared.store.create(new, lambda job: {})
    failed = shared.until(new.id)
    assert (failed.error_code, failed.error_param) == ("file_not_found", "validation_file")


def test_output_that_is_no_event_becomes_a_warning_and_nan_becomes_null(shared: JobHarness) -> None:
    job = shared.submit(chatter=True, steps=1)
    assert shared.until(job).status == "succeeded"
    assert "the training process said: not json at all" in shared.messages(job)
    assert {"step": 0, "loss": None} in [event.data for event in shared.store.events(job, None, 100)[0]]


def test_a_worker_exports_metrics(harness: JobHarness) -> None:
    port = free_port()
    with workers(harness, 1, f"metrics_port={port}"):
        assert harness.until(harness.submit(steps=1)).status == "succeeded"
        assert (
            harness.until(harness.submit(fail_code="one_class", fail_message="one", fail_param=None)).status == "failed"
        )
        long = harness.submit(steps=10_000)
        harness.until_step(long, 1)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: metric(url, "sonde_jobs") == 3)
        counts = [metric(url, f"sonde_{name}") for name in ("workers", "job_running", "attempts_total")]
        assert counts == [1, 1, 2]
        assert metric(url, "sonde_attempt_seconds_count") == 2
        assert time.time() - metric(url, "sonde_heartbeat_timestamp_seconds") < 3
        harness.request_control(long, "pause")
        harness.until(long, "paused")
        wait_until(lambda: metric(url, "sonde_attempts_total") == 3)
        assert metric(url, "sonde_job_running") == 0


@pytest.mark.parametrize("deaf", [False, True])
def test_cancelling_takes_less_than_five_seconds(shared: JobHarness, deaf: bool) -> None:
    job = shared.submit(steps=10_000, deaf=deaf)
    shared.until_step(job, 2)
    pid = shared.trace(job)[-1][2]
    began = time.monotonic()
    shared.request_control(job, "cancel")
    assert shared.until(job).status == "cancelled"
    assert time.monotonic() - began < 5
    assert not exists(pid)


def test_a_queued_job_is_cancelled_at_once_and_never_runs(harness: JobHarness) -> None:
    job = harness.submit()
    harness.request_control(job, "cancel")
    assert harness.get(job).status == "cancelled"
    with workers(harness):
        other = harness.submit(steps=1)
        assert harness.until(other).status == "succeeded"
    assert harness.trace(job) == []


def test_a_paused_job_goes_on_from_where_it_was(shared: JobHarness) -> None:
    job = shared.submit(steps=60, checkpoint_every=1000)
    shared.until_step(job, 10)
    shared.request_control(job, "pause")
    paused = shared.until(job, "paused")
    at = max(step for _, step, _ in shared.trace(job))
    other = shared.submit(steps=1)
    assert shared.until(other).status == "succeeded"  # the device is free meanwhile
    assert (shared.get(job).status, paused.crashes) == ("paused", 0)
    shared.resume(job)
    assert shared.until(job).status == "succeeded"
    assert [step for _, step, _ in shared.trace(job)] == list(range(1, 61))
    assert next(step for attempt, step, _ in shared.trace(job) if attempt == 2) == at + 1


def test_a_job_that_is_cancelled_while_it_is_paused_leaves_no_checkpoints(shared: JobHarness) -> None:
    job = shared.submit(steps=10_000, checkpoint_every=2)
    shared.until_step(job, 4)
    shared.request_control(job, "pause")
    shared.until(job, "paused")
    attempt = shared.home / "jobs" / job / "attempt-1"
    assert (attempt / "checkpoints").is_dir()
    shared.request_control(job, "cancel")
    wait_until(lambda: sorted(path.name for path in attempt.iterdir()) == ["incumbent.json", "job.json", "trainer.log"])
    assert shared.get(job).status == "cancelled"


def test_a_failure_in_the_callers_words_controls_no_log(harness: JobHarness, worker: WorkerProcess) -> None:
    job = harness.submit(fail_code="bad", fail_message=HOSTILE)
    assert harness.until(job).error_message == HOSTILE
    lines = worker.log.read_bytes().decode().removesuffix("\n").split("\n")
    assert {line["message"] for line in map(json.loads, lines)} >= {f"job failed: {HOSTILE}"}
    assert [line for line in lines if forbidden(line)] == []
