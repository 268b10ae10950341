"""Quotas of keys and of the service, also when many requests come at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.auth import Keyring
from service.errors import QuotaExceeded, TooManyJobs
from service.jobs.database import Database
from service.jobs.feedback import FeedbackStore
from service.jobs.files import Files
from service.jobs.principal import Principal
from service.jobs.quotas import Quotas
from service.jobs.store import JobStore
from tests.support.app import MakeApp
from tests.support.jobs import new_job, render_id

A, B = Principal("key-a"), Principal("key-b", sees_all=True)
KIB_4 = 4096


class Kept:
    """Jobs, files and feedback of one database."""

    def __init__(self, database: Database, home: Path, quotas: Quotas) -> None:
        self._store = JobStore(database, home, quotas=quotas)
        self._files = Files(database, home, 10**6, quotas=quotas)
        self._feedback = FeedbackStore(database, quotas=quotas)
        self._home = home

    def jobs(self, principal: Principal, number: int = 0) -> None:
        new = new_job(id=f"ftjob-{principal.id}-{number}", owner=principal.id)
        self._store.on_behalf_of(principal).create(new, render_id)

    def bytes(self, principal: Principal, number: int = 0) -> None:
        files = self._files.on_behalf_of(principal)
        with files.receive() as incoming:
            incoming.write(b"x")
            files.keep(incoming, "rows.csv", "fine-tune")

    def feedback(self, principal: Principal, number: int = 0) -> None:
        self._feedback.on_behalf_of(principal).add("m", str(number), None, "a")

    def on_disk(self) -> int:
        return len(list((self._home / "files").glob("*")))


def refused(add: Callable[[Principal, int], None], principal: Principal, number: int) -> bool:
    try:
        add(principal, number)
    except (TooManyJobs, QuotaExceeded):
        return True
    return False


@pytest.mark.parametrize("kind", ["jobs", "bytes", "feedback"])
def test_many_requests_at_once_do_not_overrun_a_quota(database: Database, tmp_path: Path, kind: str) -> None:
    each = KIB_4 if kind == "bytes" else 1
    reasons: list[str] = []
    kept = Kept(database, tmp_path, Quotas({kind: 7 * each}, {kind: 10 * each}, reasons.append))  # type: ignore[dict-item]
    add = getattr(kept, kind)
    with ThreadPoolExecutor(8) as pool:
        own = list(pool.map(lambda number: refused(add, A, number), range(25)))
        others = list(pool.map(lambda number: refused(add, B, number), range(25)))
    assert (own.count(False), others.count(False)) == (7, 3)
    assert (reasons.count(f"key_{kind}"), reasons.count(f"total_{kind}")) == (18, 22)
    assert kept.on_disk() == (10 if kind == "bytes" else 0)


def test_what_ends_or_is_deleted_makes_room(database: Database, tmp_path: Path) -> None:
    quotas = Quotas({"jobs": 1, "bytes": KIB_4})
    store, files = JobStore(database, tmp_path, principal=A, quotas=quotas), Files(database, tmp_path, 9, A, quotas)
    for number in range(2):
        store.create(new_job(number, owner=A.id), render_id)
        with pytest.raises(TooManyJobs):
            store.create(new_job(9, owner=A.id), render_id)
        store.request_control(f"ftjob-{number}", "pause")
        with pytest.raises(TooManyJobs):
            store.create(new_job(9, owner=A.id), render_id)
        store.request_control(f"ftjob-{number}", "cancel")
        with files.receive() as incoming:
            incoming.write(b"x")
            kept = files.keep(incoming, "rows.csv", "fine-tune")
        with pytest.raises(QuotaExceeded):
            files.receive()
        files.delete(kept.id)


def test_a_file_that_has_no_room_is_not_kept(database: Database, tmp_path: Path) -> None:
    files = Files(database, tmp_path, 10**6, A, Quotas({"bytes": 10_000}))
    for size, fits in ((3_000, True), (5_905, False), (5_904, True)):
        refused = pytest.raises(QuotaExceeded, match="has 4096 bytes of files, of at most 10000; 5905 more need room")
        with nullcontext() if fits else refused, files.receive() as incoming:
            incoming.write(b"x" * size)
            files.keep(incoming, "rows.csv", "fine-tune")
    assert len(list((tmp_path / "files").glob("*"))) == 2


def test_uploads_that_have_not_ended_take_room_too(database: Database, tmp_path: Path) -> None:
    everyones = Files(database, tmp_path, 10**6, quotas=Quotas({"bytes": 20_000}, {"bytes": 30_000}))
    a, b = everyones.on_behalf_of(A), everyones.on_behalf_of(B)
    with a.receive() as first, a.receive() as second, b.receive() as third:
        first.write(b"x" * 15_000)
        with pytest.raises(QuotaExceeded, match="key has 0 bytes of files, of at most 20000; 20001 more need room"):
            second.write(b"x" * 5_001)
        second.discard()
        with pytest.raises(QuotaExceeded, match="keys have 0 bytes of files, of at most 30000; 30001 more need room"):
            third.write(b"x" * 15_001)
        third.discard()
        a.keep(first, "rows.csv", "fine-tune")
    with b.receive() as incoming:  # nothing counts twice or longer than its upload
        incoming.write(b"x" * 15_000)
        b.keep(incoming, "rows.csv", "fine-tune")


@pytest.mark.parametrize(
    ("settings", "message", "reason"),
    [
        ({"max_key_jobs": 1}, "this key has 1 unfinished jobs of at most 1: wait for some, cancel", "key_jobs"),
        ({"max_total_jobs": 1}, "all keys have 1 unfinished jobs of at most 1: wait for some, cancel", "total_jobs"),
        ({"max_key_bytes": 4096}, "file: this key has 4096 bytes of files, of at most 4096; 4096 more", "key_bytes"),
        ({"max_total_bytes": 4096}, "file: all keys have 4096 bytes of files, of at most 4096;", "total_bytes"),
        ({"max_key_feedback": 1}, "this key has 1 row of feedback, of at most 1: raise", "key_feedback"),
        ({"max_total_feedback": 1}, "all keys have 1 row of feedback, of at most 1: raise", "total_feedback"),
    ],
)
@pytest.mark.parametrize("scope", ["train", "admin", None])
def test_a_refusal_says_what_is_used_up(
    make_app: MakeApp,
    openapi_document: dict[str, Any],
    settings: dict[str, int],
    message: str,
    reason: str,
    scope: str | None,
) -> None:
    app = make_app(**settings)
    headers = {}
    if scope is not None:
        headers["x-api-key"] = Keyring(app.state.settings.keys_file).create([scope])[1]  # type: ignore[list-item]
    with TestClient(app, headers=headers) as client:
        upload = {"files": {"file": ("rows.csv", b"x")}, "data": {"purpose": "fine-tune"}}
        first = client.post("/v1/files", **upload)  # type: ignore[arg-type]
        given = {"json": {"model": "fake", "training_file": first.json()["id"]}}
        label = {"json": {"model": "fake", "text": "a", "correct_label": "b"}}
        calls = [("/v1/fine_tuning/jobs", given), ("/v1/feedback", label), ("/v1/files", upload)]
        for path, body in calls[:2]:
            assert client.post(path, **body).status_code == 200  # type: ignore[arg-type]
        answers = {path: client.post(path, **body) for path, body in calls}  # type: ignore[arg-type]
        [(path, answer)] = [(path, answer) for path, answer in answers.items() if answer.status_code != 200]
        error = answer.json()["error"]
        assert error["message"].startswith(message)
        assert error["message"].endswith(f"raise --{next(iter(settings)).replace('_', '-')}")
        status, code = (429, "too_many_jobs") if "jobs" in reason else (507, "quota_exceeded")
        assert (answer.status_code, error["code"], answer.headers.get("retry-after")) == (
            status,
            code,
            "60" if status == 429 else None,
        )
        assert str(status) in openapi_document["paths"][path]["post"]["responses"]
        assert f'sonde_quota_refusals_total{{reason="{reason}"}} 1.0' in app.state.metrics.render()[0].decode()


def test_an_answer_of_before_needs_no_room(make_app: MakeApp) -> None:
    with TestClient(make_app(max_key_jobs=1)) as client:
        upload = client.post("/v1/files", files={"file": ("rows.csv", b"x")}, data={"purpose": "fine-tune"}).json()
        body, key = {"model": "fake", "training_file": upload["id"]}, {"idempotency-key": "k"}
        first, again = (client.post("/v1/fine_tuning/jobs", json=body, headers=key) for _ in range(2))
        assert (again.status_code, again.json()) == (200, first.json())
