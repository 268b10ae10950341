"""What one key owns does not exist for another: every route that names a job or a file, by every kind of key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.auth import Keyring, Scope
from service.jobs.attempt import AttemptRunner
from service.jobs.backend import JobBackend
from service.jobs.feedback import FeedbackStore
from service.jobs.leases import WorkerLeases
from service.jobs.principal import Principal
from service.jobs.records import Checkpoint, Job, JobEvent
from service.jobs.tables import feedback, files, jobs
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.artifacts import NAME
from tests.support.trained_models import train

ROWS = b'{"text": "secret rows", "label": "b"}\n'
BASE = FakeModel("fake")
NO_FILE, NO_JOB = "file-" + 24 * "0", "ftjob-" + 24 * "0"
FEEDBACK = {"model": "fake", "text": "my card", "correct_label": "lost"}


@dataclass
class Key:
    """A client of one key, and what the key owns."""

    client: TestClient
    secret: str
    id: str

    def ask(self, method: str, path: str, **given: Any) -> Any:
        return self.client.request(method, path, headers={"x-api-key": self.secret}, **given)

    def upload(self) -> str:
        given = {"files": {"file": ("secret-name.jsonl", ROWS)}, "data": {"purpose": "fine-tune"}}
        return str(self.ask("POST", "/v1/files", **given).json()["id"])

    def start(self, training_file: str, **more: Any) -> Any:
        return self.ask("POST", "/v1/fine_tuning/jobs", json={"model": "fake", "training_file": training_file, **more})

    def listed(self, path: str) -> list[str]:
        return [one["id"] for one in self.ask("GET", path).json()["data"]]


class Team:
    """An application with keys."""

    def __init__(self, app: FastAPI, client: TestClient) -> None:
        self.app, self._client = app, client
        self.jobs: JobBackend = app.state.jobs

    def key(self, *scopes: Scope) -> Key:
        key, secret = Keyring(self.app.state.settings.keys_file).create(scopes)
        return Key(self._client, secret, key.id)

    def run(self, job: str) -> Job:
        """Begin an attempt as a worker does, with a report, an event and a checkpoint."""
        claimed = self.jobs.store.claim(WorkerLeases(self.jobs.database, 15.0).open("w"), 3)
        assert claimed is not None
        assert claimed.id == job
        self.jobs.store.record(claimed, events=[JobEvent("info", "begun")], checkpoints=[Checkpoint(1, "jobs/x", {})])
        attempt = self.jobs.home / "jobs" / job / "attempt-1"
        attempt.mkdir(parents=True)
        (attempt / "report.json").write_text(json.dumps({"rungs": [], "plots": {}}))
        (attempt / "report.md").write_text("# Report")
        return claimed


def body_of(method: str) -> dict[str, Any]:
    return {"json": {}} if method == "POST" else {}


def teams(make_app: MakeApp, **settings: object) -> Iterator[Team]:
    app = make_app(BASE, **settings)
    with TestClient(app) as client:
        yield Team(app, client)


@pytest.fixture
def team(make_app: MakeApp) -> Iterator[Team]:
    yield from teams(make_app)


@pytest.fixture
def shared(make_app: MakeApp) -> Iterator[Team]:
    yield from teams(make_app, shared=True)


def routes(document: dict[str, Any], parameter: str) -> list[tuple[str, str]]:
    """Every method and path that names a job or a file."""
    paths = document["paths"].items()
    return [(method.upper(), path) for path, methods in paths if f"{{{parameter}}}" in path for method in methods]


@pytest.mark.parametrize("parameter", ["file_id", "fine_tuning_job_id"])
def test_what_is_anothers_answers_as_what_does_not_exist(
    team: Team, openapi_document: dict[str, Any], parameter: str
) -> None:
    owner, other = team.key("train"), team.key("train")
    file = owner.upload()
    job = owner.start(file).json()["id"]
    team.run(job)
    real, none = {"file_id": (file, NO_FILE), "fine_tuning_job_id": (job, NO_JOB)}[parameter]
    found = routes(openapi_document, parameter)
    assert len(found) >= 3
    for method, path in found:
        asked = path.replace("{plot}", "series.svg")
        theirs = other.ask(method, asked.replace(f"{{{parameter}}}", real), **body_of(method))
        missing = other.ask(method, asked.replace(f"{{{parameter}}}", none), **body_of(method))
        assert theirs.status_code == missing.status_code == 404, (method, path)
        assert theirs.text.replace(real, none) == missing.text, (method, path)
        assert [*theirs.headers] == [*missing.headers]
    assert owner.ask("GET", f"/v1/files/{file}/content").content == ROWS
    assert team.jobs.store.get(job).control is None
    assert owner.ask("GET", f"/v1/fine_tuning/jobs/{job}/report").status_code == 200


def test_lists_have_only_what_the_key_owns(team: Team) -> None:
    owner, other, admin = team.key("train"), team.key("train"), team.key("admin")
    file, foreign = owner.upload(), other.upload()
    job = owner.start(file).json()["id"]
    assert (owner.listed("/v1/files"), other.listed("/v1/files")) == ([file], [foreign])
    assert (owner.listed("/v1/fine_tuning/jobs"), other.listed("/v1/fine_tuning/jobs")) == ([job], [])
    assert (admin.listed("/v1/files"), admin.listed("/v1/fine_tuning/jobs")) == ([foreign, file], [job])
    for path, real, none in (("/v1/files", file, NO_FILE), ("/v1/fine_tuning/jobs", job, NO_JOB)):
        theirs, missing = (other.ask("GET", path, params={"after": one}) for one in (real, none))
        assert (theirs.status_code, theirs.text.replace(real, none)) == (404, missing.text)


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
def test_a_job_cannot_use_anothers_file(team: Team, field: str) -> None:
    owner, other = team.key("train"), team.key("train")
    file = owner.upload()
    given = {"training_file": other.upload()}
    theirs, missing = (other.start(**{**given, field: one}) for one in (file, NO_FILE))
    assert (theirs.status_code, theirs.text.replace(file, NO_FILE)) == (404, missing.text)


def test_an_admin_reads_and_changes_what_keys_own(team: Team) -> None:
    owner, admin = team.key("train"), team.key("admin")
    file = owner.upload()
    job = owner.start(file).json()
    assert (job["owner"], admin.ask("GET", f"/v1/files/{file}").json()["owner"]) == (owner.id, owner.id)
    assert admin.ask("POST", f"/v1/fine_tuning/jobs/{job['id']}/cancel").status_code == 200
    assert admin.start(file).json()["owner"] == admin.id
    refused = owner.ask("DELETE", f"/v1/files/{file}").json()["error"]
    assert refused["message"] == f"{file} is needed by a job of another key: cancel that job first"


def test_a_key_without_train_sees_none_of_it(team: Team, openapi_document: dict[str, Any]) -> None:
    infer = team.key("infer")
    for parameter in ("file_id", "fine_tuning_job_id"):
        for method, path in routes(openapi_document, parameter):
            assert infer.ask(method, path.replace("{plot}", "series.svg"), **body_of(method)).status_code == 403


def test_what_was_made_before_owners_is_every_keys_and_what_was_made_without_keys_is_the_admins(
    team: Team, make_app: MakeApp
) -> None:
    client = Key(team._client, "", "anonymous")
    old, keyless = client.upload(), client.upload()
    job = client.start(old).json()["id"]
    with team.jobs.database.write() as connection:
        connection.execute(files.update().where(files.c.id == old).values(owner=None))
        connection.execute(jobs.update().values(owner=None))
    key, admin = team.key("train"), team.key("admin")
    assert (key.listed("/v1/files"), admin.listed("/v1/files")) == ([old], [keyless, old])
    assert key.ask("POST", f"/v1/fine_tuning/jobs/{job}/cancel").status_code == 200


def test_one_team_shares_all(shared: Team) -> None:
    owner, other = shared.key("train"), shared.key("train")
    file = owner.upload()
    job = other.start(file).json()
    assert (owner.listed("/v1/files"), other.listed("/v1/files")) == ([file], [file])
    assert owner.ask("GET", f"/v1/fine_tuning/jobs/{job['id']}").json()["owner"] == other.id


def texts(team: Team, job: str, tmp_path: Path) -> list[str]:
    """The texts that every attempt at a job on feedback trains on."""
    runner = AttemptRunner.__new__(AttemptRunner)
    runner._rows = FeedbackStore(team.jobs.database)
    kept = team.jobs.store.get(job)
    path = runner._rows_path("training_file", kept.training_file, kept, tmp_path)
    assert path is not None
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_job_trains_on_feedback_of_its_own_key(team: Team, tmp_path: Path) -> None:
    owner, other, admin = team.key("train"), team.key("train"), team.key("admin")
    for key, text in ((owner, "mine"), (other, "theirs"), (owner, "old")):
        assert key.ask("POST", "/v1/feedback", json={**FEEDBACK, "text": text}).status_code == 200
    with team.jobs.database.write() as connection:
        connection.execute(feedback.update().where(feedback.c.text == "old").values(owner=None))
    mine, everyones = (key.start("feedback:fake").json()["id"] for key in (owner, admin))
    assert other.ask("POST", "/v1/feedback", json={**FEEDBACK, "text": "late"}).status_code == 200
    assert texts(team, mine, tmp_path) == ["mine", "old"]
    assert texts(team, everyones, tmp_path) == ["mine", "theirs", "old"]


def test_a_key_lists_its_own_feedback(team: Team) -> None:
    owner, other, admin = team.key("train"), team.key("train"), team.key("admin")
    owner.ask("POST", "/v1/feedback", json=FEEDBACK)
    listed = [key.ask("GET", f"/v1/feedback?model={FEEDBACK['model']}").json()["data"] for key in (owner, other, admin)]
    assert [len(rows) for rows in listed] == [1, 0, 1]


def test_anothers_feedback_does_not_show_that_it_exists(team: Team) -> None:
    owner, other = team.key("train"), team.key("train")
    owner.ask("POST", "/v1/feedback", json=FEEDBACK)
    theirs, missing = (other.start(f"feedback:{name}") for name in ("fake", "none"))
    assert (theirs.status_code, theirs.text.replace("fake", "none")) == (422, missing.text)


def test_an_idempotency_key_belongs_to_one_key(team: Team) -> None:
    owner, other = team.key("train"), team.key("train")
    made = []
    for key in (owner, other):
        body = {"model": "fake", "training_file": key.upload()}
        given = {"x-api-key": key.secret, "idempotency-key": "same"}
        made.append(key.client.post("/v1/fine_tuning/jobs", json=body, headers=given).json())
    assert [job["owner"] for job in made] == [owner.id, other.id]


def test_the_lists_of_models_and_metrics_name_no_jobs_and_files_of_others(team: Team, tmp_path: Path) -> None:
    owner, other, admin = team.key("train", "infer"), team.key("train", "infer"), team.key("admin")
    file = owner.upload()
    job = owner.start(file).json()["id"]
    registry, manager = team.app.state.registry, team.app.state.manager
    registry.promote(NAME, train(registry, tmp_path, BASE, job=job, owner=owner.id), by=job, why="better")
    manager.watcher.sync()
    paths = ["/v1/models", f"/v1/models/{NAME}", "/info", "/metrics", "/v1/aliases"]
    history = [f"/v1/models/{NAME}/versions", f"/v1/models/{NAME}/ledger"]
    for path in (*paths, *history):
        seen = other.ask("GET", path)
        assert seen.status_code == 200
        assert not [word for word in (job.removeprefix("ftjob-"), file, "secret") if word in seen.text], path
    for key in (owner, admin):
        assert all(job in key.ask("GET", path).text for path in history)
    assert [line["by"] for line in other.ask("GET", history[1]).json()["data"]] == [owner.id, owner.id]


@pytest.mark.parametrize(
    ("principal", "seen"),
    [
        (Principal("key-1"), [True, False, False, True]),
        (Principal("key-1", sees_all=True), [True, True, True, True]),
        (Principal.from_feedback_reader("key-1"), [True, False, False, True]),
        (Principal.from_feedback_reader(None), [True, True, True, True]),
    ],
)
def test_a_caller_sees_its_own_and_what_has_no_owner(principal: Principal, seen: list[bool]) -> None:
    owners = ["key-1", "key-2", "anonymous", None]
    assert [principal.may_see(owner) for owner in owners] == seen
    assert Principal.from_feedback_reader(principal.reads_feedback_of).may_see("key-2") == principal.may_see("key-2")
