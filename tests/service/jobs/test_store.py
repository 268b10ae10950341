"""The store on both databases: claims, fences, idempotency."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import IdempotencyConflict, InvalidRequest, JobNotFound, JobState, LeaseLost
from service.jobs.database import Database
from service.jobs.leases import WorkerLeases
from service.jobs.records import Checkpoint, Failure, IdempotencyKey, Job, JobEvent, Success
from service.jobs.store import JobStore
from service.jobs.tables import jobs, worker_lease
from tests.support.jobs import claim_job, create_job, new_job, render_id


@pytest.fixture
def store(database: Database, tmp_path: Path) -> JobStore:
    return JobStore(database, tmp_path, lease_s=15.0)


@pytest.fixture
def leases(database: Database) -> WorkerLeases:
    return WorkerLeases(database, 15.0)


def expire(database: Database, by_s: float = 1000.0) -> None:
    with database.write() as connection:
        connection.execute(worker_lease.update().values(expires_at=worker_lease.c.expires_at - by_s))


def test_a_job_comes_back_as_it_went_in(store: JobStore) -> None:
    given: dict[str, Any] = {
        "hyperparameters": {"a": [1, None]},
        "columns": {"text": "t"},
        "metadata": {"k": "v"},
        "feedback_until": 3,
    }
    job = create_job(store, **given)
    assert {name: getattr(job, name) for name in given} == given
    assert (job.status, job.attempt, job.lease) == ("queued", 0, None)
    assert abs(job.created_at - time.time()) < 5


def test_pages_are_newest_first_and_filtered_by_metadata(store: JobStore) -> None:
    for number in range(5):
        create_job(store, number, metadata={"team": "a" if number % 2 else "b"} if number else None)
    first, more = store.page(None, 2)
    rest, no_more = store.page(first[-1].id, 5)
    assert [job.id for job in first + rest] == [f"ftjob-{n}" for n in (4, 3, 2, 1, 0)]
    assert (more, no_more) == (True, False)
    assert [job.id for job in store.page(None, 9, {"team": "a"})[0]] == ["ftjob-3", "ftjob-1"]
    with pytest.raises(JobNotFound):
        store.page("ftjob-none", 2)


def test_the_same_key_and_body_give_the_same_answer(store: JobStore) -> None:
    idempotency_key = IdempotencyKey("key-1", "k", "f" * 64)
    first = store.create(new_job(1), render_id, idempotency_key)
    store.request_control("ftjob-1", "cancel")
    again = store.create(new_job(2), render_id, idempotency_key)
    assert first == again == {"id": "ftjob-1", "status": "queued"}
    with pytest.raises(IdempotencyConflict):
        store.create(new_job(3), render_id, replace(idempotency_key, fingerprint="e" * 64))
    other = store.create(new_job(4), render_id, replace(idempotency_key, owner="key-2"))
    assert other["id"] == "ftjob-4", "another caller's key is another key"
    assert [job.id for job in store.page(None, 9)[0]] == ["ftjob-4", "ftjob-1"]


def test_the_same_key_at_the_same_time_starts_one_job(store: JobStore) -> None:
    idempotency_key, answers = IdempotencyKey("key-1", "k", "f" * 64), []

    def ask(number: int) -> None:
        answers.append(store.create(new_job(number), render_id, idempotency_key))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len({answer["id"] for answer in answers}) == 1
    assert len(store.page(None, 9)[0]) == 1


def test_only_one_worker_gets_a_job(database: Database, tmp_path: Path) -> None:
    store, leases = (
        JobStore(database, tmp_path),
        WorkerLeases(database, 15.0),
    )  # a busy disk takes its time for six of them
    create_job(store)
    held = [leases.open(f"w{n}") for n in range(6)]
    got: list[Job | None] = []
    threads = [threading.Thread(target=lambda lease=lease: got.append(store.claim(lease, 3))) for lease in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [job.attempt for job in got if job] == [1]


def test_several_workers_take_different_jobs_the_oldest_first(database: Database, tmp_path: Path) -> None:
    store, leases = JobStore(database, tmp_path), WorkerLeases(database, 15.0)
    for number in range(4):
        create_job(store, number)
    with ExitStack() as stack:
        if not database.embedded:  # a claim that is not committed yet is no reason to wait
            slow = stack.enter_context(database.write())
            slow.execute(sa.select(jobs).where(jobs.c.id == "ftjob-0").with_for_update())
            assert claim_job(store, leases).id == "ftjob-1"
    got = [claim_job(store, leases).id for _ in range(4 - (not database.embedded))]
    assert got == [f"ftjob-{n}" for n in range(4) if database.embedded or n != 1]
    assert store.claim(leases.open("w"), 3) is None


def test_many_workers_at_once_take_every_job_once(database: Database, tmp_path: Path) -> None:
    store, leases = JobStore(database, tmp_path), WorkerLeases(database, 15.0)
    for number in range(20):
        create_job(store, number)
    got: list[str] = []

    def work(lease: str) -> None:
        misses = 0
        while misses < 3:  # PostgreSQL may skip a row that another worker has just released
            job = store.claim(lease, 3)
            misses = misses + 1 if job is None else 0
            got.extend([job.id] if job else [])

    threads = [threading.Thread(target=work, args=(leases.open(f"w{n}"),)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(f"ftjob-{n}" for n in range(20))


def create_jobs(database: Database, owner: str | None, count: int) -> None:
    """Queue jobs in one transaction."""
    with database.write() as connection:
        rows = [asdict(new_job(id=f"ftjob-{owner}-{number}", owner=owner)) for number in range(count)]
        connection.execute(jobs.insert(), [{**row, "created_at": 0.0, "status": "queued"} for row in rows])


def test_owners_take_turns(database: Database, tmp_path: Path) -> None:
    store, leases = JobStore(database, tmp_path), WorkerLeases(database, 15.0)
    create_jobs(database, "key-1", 1000)
    create_jobs(database, "key-2", 1)
    create_jobs(database, None, 2)
    got = [claim_job(store, leases).id.removeprefix("ftjob-") for _ in range(6)]
    assert got == ["key-1-0", "key-2-0", "None-0", "key-1-1", "None-1", "key-1-2"]
    create_jobs(database, "key-3", 1)
    assert claim_job(store, leases).owner == "key-3"


def test_a_job_that_is_queued_again_and_again_keeps_no_other_owner_waiting(database: Database, tmp_path: Path) -> None:
    store, leases = JobStore(database, tmp_path), WorkerLeases(database, 15.0)
    create_jobs(database, "key-1", 1)
    create_jobs(database, "key-2", 2)
    got = []
    for _ in range(4):
        job = claim_job(store, leases, 9)
        got.append(job.owner)
        store.requeue_crashed(job, Failure("trainer_crashed", "it died"), 9)
    assert got == ["key-1", "key-2", "key-1", "key-2"]


def test_several_workers_take_turns_together(database: Database, tmp_path: Path) -> None:
    store, leases = JobStore(database, tmp_path), WorkerLeases(database, 15.0)
    for owner, count in (("key-1", 60), ("key-2", 4), ("key-3", 4)):
        create_jobs(database, owner, count)
    held = [leases.open(f"w{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda lease: store.claim(lease, 3), held * 3))
    assert Counter(job.owner for job in got if job) == {"key-1": 4, "key-2": 4, "key-3": 4}


def test_a_worker_without_work_opens_no_transaction_that_writes(tmp_path: Path) -> None:
    """A worker that is stopped meanwhile would keep SQLite's lock for ever."""
    with closing(Database("", tmp_path)) as database, closing(Database("", tmp_path)) as other:
        database.migrate()
        store, lease = JobStore(database, tmp_path), WorkerLeases(database, 15.0).open("w")
        with other.write():
            assert store.claim(lease, 3) is None


def test_an_attempt_writes_until_its_lease_expires(store: JobStore, leases: WorkerLeases, database: Database) -> None:
    create_job(store)
    job = claim_job(store, leases)
    store.record(
        job, events=[JobEvent("info", "one"), JobEvent("info", "two", "metrics", {"eta_s": 5})], status="running"
    )
    assert store.get(job.id).status == "running"
    assert store.get(job.id).estimated_finish == pytest.approx(time.time() + 5, abs=5)
    expire(database)
    for write in (
        lambda: store.record(job, events=[JobEvent("info", "late")]),
        lambda: store.record(job, checkpoints=[Checkpoint(1, "x", {})]),
        lambda: store.succeed(job, Success("m", 0, {})),
        lambda: store.fail(job, Failure("c", "m")),
        lambda: store.cancel(job),
        lambda: store.pause(job),
        lambda: store.requeue(job, "why"),
        lambda: store.requeue_crashed(job, Failure("c", "m"), 3),
        lambda: store.fence(job),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert [event.message for event in store.events(job.id, None, 9)[0]] == [
        "two",
        "one",
        "Created fine-tuning job: ftjob-1",
    ]
    assert store.get(job.id).status == "running"


def test_an_attempt_writes_nothing_once_another_has_begun(
    store: JobStore, leases: WorkerLeases, database: Database
) -> None:
    create_job(store)
    first = claim_job(store, leases)
    expire(database)
    second = claim_job(store, leases)
    assert (second.attempt, second.crashes) == (2, 1)
    with pytest.raises(LeaseLost):
        store.record(first, events=[JobEvent("info", "late")])
    store.succeed(second, Success("ft:fake:local:x:v1", 3, {"version": 1}))
    with pytest.raises(LeaseLost):
        store.fail(first, Failure("late", "late"))
    with pytest.raises(LeaseLost):
        store.succeed(second, Success("twice", 3, {}))
    assert (store.get("ftjob-1").status, store.get("ftjob-1").fine_tuned_model) == ("succeeded", "ft:fake:local:x:v1")


def test_a_lease_is_renewed_until_it_has_expired(leases: WorkerLeases, database: Database) -> None:
    lease = leases.open("w")
    assert leases.renew(lease)
    assert leases.workers() == {"w"}
    expire(database)
    assert not leases.renew(lease)
    assert leases.workers() == frozenset()


def test_a_lease_from_the_future_counts_as_expired(leases: WorkerLeases, database: Database) -> None:
    lease = leases.open("w")
    expire(database, by_s=-3600)  # the clock was set back by an hour
    assert not leases.renew(lease)
    assert leases.workers() == frozenset()


def test_a_worker_that_dies_too_often_fails_the_job(store: JobStore, leases: WorkerLeases, database: Database) -> None:
    create_job(store)
    for _ in range(3):
        claim_job(store, leases)
        expire(database)
    create_job(store, 2)
    assert claim_job(store, leases).id == "ftjob-2", "the failed job keeps no other from its worker"
    assert (store.get("ftjob-1").status, store.get("ftjob-1").error_code) == ("failed", "worker_lost")


def test_a_checkpoint_resets_the_count_of_crashes(store: JobStore, leases: WorkerLeases, database: Database) -> None:
    create_job(store)
    claim_job(store, leases)
    expire(database)
    job = claim_job(store, leases)
    store.record(job, checkpoints=[Checkpoint(5, "jobs/x/5", {"train_loss": 0.1})])
    assert store.get(job.id).crashes == 0
    [newest] = store.checkpoints(job.id, None, 10)[0]
    assert (newest.step, newest.attempt, newest.metrics) == (5, 2, {"train_loss": 0.1})


def test_a_crashed_attempt_is_queued_again_until_it_crashed_too_often(store: JobStore, leases: WorkerLeases) -> None:
    create_job(store)
    statuses = []
    for _ in range(3):
        store.requeue_crashed(claim_job(store, leases), Failure("trainer_crashed", "it died"), 3)
        statuses.append(store.get("ftjob-1").status)
    assert statuses == ["queued", "queued", "failed"]
    messages = {event.message for event in store.events("ftjob-1", None, 9)[0] if event.level == "warn"}
    assert messages == {"it died; the job goes on from its newest checkpoint, or begins again where it has none"}
    assert (store.get("ftjob-1").status, store.get("ftjob-1").error_code) == ("failed", "trainer_crashed")


def test_a_running_attempt_sees_requests_to_pause_and_cancel(store: JobStore, leases: WorkerLeases) -> None:
    create_job(store)
    job = claim_job(store, leases)
    assert store.request_control(job.id, "pause").control == "pause"
    assert store.request_control(job.id, "cancel").control == "cancel"
    assert store.pause(job) == "cancelled"  # the last request counts
    with pytest.raises(JobState):
        store.request_control(job.id, "cancel")
    with pytest.raises(JobState):
        store.resume(job.id)


@pytest.mark.parametrize("lost", [False, True], ids=["alive", "worker gone"])
def test_a_cancel_is_not_lost_to_a_pause_that_follows(
    store: JobStore, leases: WorkerLeases, database: Database, lost: bool
) -> None:
    create_job(store)
    job = claim_job(store, leases)
    store.request_control(job.id, "cancel")
    if lost:
        expire(database)
    with pytest.raises(JobState, match="is being cancelled: it cannot be paused any more"):
        store.request_control(job.id, "pause")
    assert (store.get(job.id).status, store.get(job.id).control) == ("validating_files", "cancel")


def test_pausing_and_resuming_before_it_was_seen_changes_nothing(store: JobStore, leases: WorkerLeases) -> None:
    create_job(store)
    job = claim_job(store, leases)
    store.request_control(job.id, "pause")
    assert store.resume(job.id).control is None
    assert store.pause(job) == "queued"  # the trainer was stopped already: it goes on


def test_a_queued_job_is_paused_and_resumed_at_once(store: JobStore) -> None:
    create_job(store)
    assert store.request_control("ftjob-1", "pause").status == "paused"
    assert store.request_control("ftjob-1", "pause").status == "paused"
    resumed = store.resume("ftjob-1")
    assert resumed.status == "queued"
    with pytest.raises(JobState):
        store.resume("ftjob-1")


def test_jobs_that_no_worker_runs_are_claimed_and_no_others(
    store: JobStore, leases: WorkerLeases, database: Database
) -> None:
    for number in range(4):
        create_job(store, number)
    assert [claim_job(store, leases).id for _ in range(2)] == ["ftjob-0", "ftjob-1"]
    expire(database)
    assert claim_job(store, leases).id == "ftjob-0"  # under a lease in force again
    store.request_control("ftjob-3", "pause")
    assert [claim_job(store, leases).id for _ in range(2)] == ["ftjob-1", "ftjob-2"]
    assert store.claim(leases.open("w"), 3) is None


def test_a_worker_whose_lease_has_expired_claims_nothing(
    store: JobStore, leases: WorkerLeases, database: Database
) -> None:
    create_job(store)
    lease = leases.open("w")
    expire(database)
    with pytest.raises(LeaseLost):
        store.claim(lease, 3)
    assert (store.get("ftjob-1").status, store.get("ftjob-1").attempt) == ("queued", 0)


def test_finished_jobs_are_listed_by_time(store: JobStore) -> None:
    for number in range(3):
        create_job(store, number)
    for number in (1, 2):
        store.request_control(f"ftjob-{number}", "cancel")
    ended = dict(store.finished_since(0))
    assert ended == {f"ftjob-{number}": store.get(f"ftjob-{number}").finished_at for number in (1, 2)}
    assert [job for job, _ in store.finished_since(ended["ftjob-2"])][-1] == "ftjob-2"
    assert store.finished_since(ended["ftjob-2"] + 1) == []


def test_finished_jobs_beyond_a_limit_are_each_owners_oldest(store: JobStore, leases: WorkerLeases) -> None:
    for number in range(5):
        create_job(store, number)
    for number in (0, 1, 2, 4):
        store.request_control(f"ftjob-{number}", "cancel")
    store.create(new_job(id="ftjob-other", owner="other"), render_id)
    store.request_control("ftjob-other", "cancel")
    assert [job.id for job in store.finished_beyond(2)] == ["ftjob-0", "ftjob-1"]
    for job in ("ftjob-0", "ftjob-0", "ftjob-3"):  # gone already, and unfinished
        store.remove_finished(job)
    with pytest.raises(JobNotFound):
        store.events("ftjob-0", None, 1)
    assert store.get("ftjob-3").status == "queued"
    assert [job.id for job in store.finished_beyond(2)] == ["ftjob-1"]


def test_an_id_with_nul_is_a_callers_error(store: JobStore) -> None:
    with pytest.raises((JobNotFound, InvalidRequest)):
        store.get("a\0b")


def test_events_are_paged_from_the_newest(store: JobStore, leases: WorkerLeases) -> None:
    create_job(store)
    job = claim_job(store, leases)
    store.record(job, events=[JobEvent("info", str(n)) for n in range(5)])
    first, more = store.events(job.id, None, 3)
    rest, no_more = store.events(job.id, first[-1].seq, 9)
    assert [event.message for event in first + rest][:5] == ["4", "3", "2", "1", "0"]
    assert (more, no_more) == (True, False)
