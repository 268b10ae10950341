"""Jobs through the openai client, strict and lenient, and what it does not know."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.training.confusion import Confusion
from models.training.report import Finding, Picture, Report
from models.training.reported_events import ReportedEvent, ReportedEvents
from service.api.report_summary import ReportSummary
from service.auth import Keyring
from service.config import Settings
from service.jobs.backend import JobBackend
from service.jobs.leases import WorkerLeases
from service.jobs.records import Checkpoint, Failure, Job, JobEvent, Success
from tests.fakes.model import FakeModel
from tests.fakes.sensor import FakeSensor
from tests.service.test_plots import LABEL_PLOTS, PLOTS
from tests.support.app import MakeApp
from tests.support.sensors import put_in_service

ROWS = b'{"text": "a", "label": "b"}\n'


@pytest.fixture
def application(make_app: MakeApp, tmp_path: Path) -> Iterator[FastAPI]:
    made = make_app(FakeModel())
    made.state.jobs.close()
    made.state.jobs = JobBackend.open(Settings.read({"home": tmp_path}))
    yield made
    made.state.jobs.close()


@pytest.fixture
def backend(application: FastAPI) -> JobBackend:
    found: JobBackend = application.state.jobs
    return found


@pytest.fixture
def http(application: FastAPI) -> Iterator[TestClient]:
    with TestClient(application) as client:
        yield client


@pytest.fixture(params=[False, True], ids=["lenient", "strict"])
def client(request: pytest.FixtureRequest, http: TestClient) -> openai.OpenAI:
    transport: Any = http
    return openai.OpenAI(
        base_url="http://testserver/v1",
        api_key="none",
        http_client=transport,
        _strict_response_validation=request.param,
        max_retries=0,
    )


@pytest.fixture
def file(backend: JobBackend) -> str:
    backend.store.migrate()
    with backend.files.receive() as incoming:
        incoming.write(ROWS)
        return backend.files.keep(incoming, "rows.jsonl", "fine-tune").id


def begin(backend: JobBackend, job: str) -> Job:
    """Be the worker."""
    claimed = backend.store.claim(WorkerLeases(backend.database, 15.0).open("w"), 3)
    assert claimed is not None
    assert claimed.id == job
    return claimed


def test_the_whole_way_through_the_openai_client(client: openai.OpenAI, backend: JobBackend) -> None:
    file = client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
    assert [one.id for one in client.files.list()] == [file.id]
    # Keys of ours go where OpenAI's types have none.
    method: Any = {
        "type": "supervised",
        "supervised": {"task": "classification", "hyperparameters": {"n_epochs": 3, "mode": "lora"}},
    }
    job = client.fine_tuning.jobs.create(
        model="fake", training_file=file.id, suffix="support", seed=7, metadata={"team": "a"}, method=method
    )
    assert (job.object, job.status, job.seed, job.metadata, job.organization_id) == (
        "fine_tuning.job",
        "queued",
        7,
        {"team": "a"},
        "local",
    )
    assert job.method is not None
    assert job.method.model_dump()["supervised"]["task"] == "classification"
    begun = begin(backend, job.id)
    steps = [JobEvent("info", f"Step {n}", "metrics", {"step": n, "loss": 0.5, "eta_s": 3.0}) for n in range(3)]
    backend.store.record(
        begun, events=steps, checkpoints=[Checkpoint(2, "jobs/x", {"train_loss": 0.5})], status="running"
    )
    running = client.fine_tuning.jobs.retrieve(job.id)
    assert (running.status, running.estimated_finish is not None) == ("running", True)
    backend.store.succeed(begun, Success("ft:fake:local:support:v1", 12, {"version": 1, "decision": "promoted"}))
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.fine_tuned_model, done.trained_tokens) == ("succeeded", "ft:fake:local:support:v1", 12)
    assert [one.id for one in client.fine_tuning.jobs.list()] == [job.id]
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [event.message for event in events][:2] == ["The job has successfully completed", "Step 2"]
    assert [event.data["step"] for event in events if event.type == "metrics" and isinstance(event.data, dict)] == [
        2,
        1,
        0,
    ]
    checkpoint = next(iter(client.fine_tuning.jobs.checkpoints.list(job.id)))
    assert (checkpoint.step_number, checkpoint.metrics.train_loss) == (2, 0.5)
    assert client.files.content(file.id).read() == ROWS
    assert client.files.delete(file.id).deleted


def test_a_failed_job_says_why(client: openai.OpenAI, backend: JobBackend, file: str) -> None:
    job = client.fine_tuning.jobs.create(model="fake", training_file=file)
    backend.store.fail(begin(backend, job.id), Failure("one_class", "expected two labels", "training_file"))
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.message, failed.error.param) == (
        "one_class",
        "expected two labels",
        "training_file",
    )
    assert failed.finished_at is not None


def test_cancelling_pausing_and_resuming(client: openai.OpenAI, backend: JobBackend, file: str) -> None:
    job = client.fine_tuning.jobs.create(model="fake", training_file=file)
    paused = client.fine_tuning.jobs.pause(job.id)
    assert (paused.status, paused.model_dump()["paused"]) == ("queued", True)
    assert client.fine_tuning.jobs.resume(job.id).model_dump()["paused"] is False
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    for wrong in (client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
        with pytest.raises(openai.BadRequestError) as refused:
            wrong(job.id)
        assert refused.value.code == "invalid_job_state"


def test_what_is_not_there_is_404(client: openai.OpenAI, backend: JobBackend) -> None:
    jobs = client.fine_tuning.jobs
    for ask in (jobs.retrieve, jobs.cancel, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError) as missing:
            ask("ftjob-none")
        assert missing.value.code == "job_not_found"
    for model, code in (("fake", "file_not_found"), ("other", "model_not_found")):
        with pytest.raises(openai.NotFoundError) as missing:
            jobs.create(model=model, training_file="file-none")
        assert missing.value.code == code


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"suffix": "../x"}, "suffix"),
        ({"suffix": "a:b"}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"training_file": ""}, "training_file"),
        ({"training_file": "feedback:none"}, "training_file"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"method": {"type": "supervised", "supervised": {"task": "chat"}}}, "method.supervised.task"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"out_of_scope_label": "\x00"}}}},
            "method.supervised.hyperparameters",
        ),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"integrations": [{"type": "wandb"}]}, "integrations"),
        ({"surprise": 1}, "surprise"),
        ({"method": {"type": "supervised"}, "hyperparameters": {"n_epochs": 1}}, None),
    ],
)
def test_what_breaks_the_contract_is_named(
    http: TestClient, file: str, changed: dict[str, Any], param: str | None
) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file, **changed})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


@pytest.mark.parametrize(
    ("task", "given", "code", "param"),
    [
        ("classification", {"mode": "qlora"}, "invalid_hyperparameter", "mode"),
        ("classification", {"mode": "frozen", "n_epochs": 3}, "invalid_hyperparameter", "n_epochs"),
        ("embedding", {"learning_rate": 11}, "invalid_hyperparameter", "learning_rate"),
        ("anomaly", {"alpha": 0.1}, "unknown_hyperparameter", "alpha"),
        ("anomaly", {"x" * 100_000: 1}, "unknown_hyperparameter", "x" * 60),
    ],
)
def test_what_a_task_cannot_set_is_refused_before_the_job_is_queued(
    http: TestClient, file: str, task: str, given: dict[str, Any], code: str, param: str
) -> None:
    method = {"type": "supervised", "supervised": {"task": task, "hyperparameters": given}}
    answer = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file, "method": method})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (
        422,
        code,
        f"method.supervised.hyperparameters.{param}",
    ), error
    assert len(answer.content) < 2000
    assert http.get("/v1/fine_tuning/jobs").json()["data"] == []


@pytest.mark.parametrize("name", ["integrations", "metadata", "suffix", "seed", "method", "validation_file"])
def test_what_an_answer_says_of_a_job_may_be_sent_again(http: TestClient, file: str, name: str) -> None:
    body = {"model": "fake", "training_file": file}
    made = http.post("/v1/fine_tuning/jobs", json=body).json()
    again = http.post("/v1/fine_tuning/jobs", json={**body, name: made.get(name)})
    assert again.status_code == 200, again.text
    assert {key: again.json()[key] for key in ("method", "seed", name) if key in made} == {
        key: made[key] for key in ("method", "seed", name) if key in made
    }


OPENAIS = {"batch_size", "learning_rate_multiplier", "n_epochs"}


@pytest.mark.parametrize("given", [{}, {"n_epochs": 3}, {"mode": "lora"}, dict.fromkeys(OPENAIS, "auto")])
def test_a_job_always_has_openais_hyperparameters(http: TestClient, file: str, given: dict[str, Any]) -> None:
    body = {"model": "fake", "training_file": file, "hyperparameters": given}
    made = http.post("/v1/fine_tuning/jobs", json=body).json()
    listed = http.get("/v1/fine_tuning/jobs").json()["data"][0]
    for job in (made, http.get(f"/v1/fine_tuning/jobs/{made['id']}").json(), listed):
        assert job["hyperparameters"] == {**dict.fromkeys(OPENAIS, "auto"), **given}
    assert http.post("/v1/fine_tuning/jobs", json={**body, "hyperparameters": made["hyperparameters"]}).is_success


@pytest.mark.parametrize("task", ["anomaly", "rerank", "embedding"])
def test_every_task_takes_them_as_auto(http: TestClient, file: str, task: str) -> None:
    method = {"type": "supervised", "supervised": {"task": task, "hyperparameters": dict.fromkeys(OPENAIS, "auto")}}
    answer = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file, "method": method})
    assert answer.is_success, answer.text


@pytest.mark.parametrize(
    ("given", "param"), [({"mode": "qlora"}, ".mode"), ({"alpha": 1}, ".alpha"), ({"out_of_scope_label": "\x00"}, "")]
)
def test_what_the_older_form_says_wrong_is_named_as_it_was_sent(
    http: TestClient, file: str, given: dict[str, Any], param: str
) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file, "hyperparameters": given})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, f"hyperparameters{param}")


def test_an_idempotency_key_starts_one_job(http: TestClient, backend: JobBackend, file: str) -> None:
    def ask(**more: Any) -> Any:
        return http.post(
            "/v1/fine_tuning/jobs",
            json={"model": "fake", "training_file": file, **more},
            headers={"idempotency-key": "k"},
        )

    first, again, other = ask(), ask(), ask(seed=1)
    assert (first.status_code, first.json()) == (200, again.json())
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_conflict")
    assert len(http.get("/v1/fine_tuning/jobs").json()["data"]) == 1
    assert begin(backend, first.json()["id"]).attempt == 1
    assert backend.store.counts() == {"validating_files": 1}, "no other job waits"


def test_a_request_is_answered_as_before_though_its_file_is_gone(http: TestClient, file: str) -> None:
    def ask(key: str, **more: Any) -> Any:
        return http.post(
            "/v1/fine_tuning/jobs",
            json={"model": "fake", "training_file": file, **more},
            headers={"idempotency-key": key},
        )

    first = ask("k")
    http.post(f"/v1/fine_tuning/jobs/{first.json()['id']}/cancel")
    assert http.delete(f"/v1/files/{file}").status_code == 200
    assert (ask("k").status_code, ask("k").json()) == (200, first.json())
    assert (ask("k", seed=1).status_code, ask("other").json()["error"]["param"]) == (422, "training_file")


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_a_file_that_is_not_there_is_named(http: TestClient, file: str, param: str) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file, param: "file-none"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, param)


def test_what_was_asked_for_reaches_the_worker(http: TestClient, backend: JobBackend, file: str) -> None:
    http.post("/v1/feedback", json={"model": "ft:x", "text": "t", "correct_label": "b"})
    supervised = {"task": "anomaly", "hyperparameters": {"neighbours": 3}, "columns": {"text": "utterance"}}
    body = {"model": "fake", "training_file": "feedback:ft:x", "validation_file": file, "suffix": "s"}
    made = http.post(
        "/v1/fine_tuning/jobs", json={**body, "method": {"type": "supervised", "supervised": supervised}}
    ).json()
    job = backend.store.get(made["id"])
    assert (job.name, job.task, job.hyperparameters, job.columns) == (
        "ft:fake:local:s",
        "anomaly",
        {"neighbours": 3},
        {"text": "utterance"},
    )
    assert (job.training_file, job.feedback_until, job.validation_file) == ("feedback:ft:x", 1, file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("supervised", "message"),
    [
        (
            {"columns": {"txt": "x"}},
            "columns: expected names among text, label, messages for task classification, got 'txt'",
        ),
        (
            {"task": "rerank", "columns": {"text": "x"}},
            "names among query, document, label for task rerank, got 'text'",
        ),
        ({"columns": {"text": "x", "label": "x"}}, "columns: expected each column of the file once, got one twice"),
    ],
)
def test_columns_that_play_no_part_in_the_task_are_refused_before_the_job_is_queued(
    http: TestClient, backend: JobBackend, file: str, supervised: dict[str, Any], message: str
) -> None:
    body = {"model": "fake", "training_file": file, "method": {"type": "supervised", "supervised": supervised}}
    refused = http.post("/v1/fine_tuning/jobs", json=body)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (422, "invalid_value", "method.supervised.columns")
    assert message in error["message"]
    assert http.get("/v1/fine_tuning/jobs").json()["data"] == []


@pytest.mark.parametrize(("task", "given"), [("anomaly", {"kind": "series"}), ("forecast", {"horizon": 8})])
def test_sensor_jobs_take_no_columns_of_texts(http: TestClient, file: str, task: str, given: dict[str, Any]) -> None:
    supervised = {"task": task, "hyperparameters": given, "columns": {"text": "x"}}
    body = {"model": "sensors", "training_file": file, "method": {"type": "supervised", "supervised": supervised}}
    refused = http.post("/v1/fine_tuning/jobs", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "method.supervised.columns")
    assert "hyperparameters" in refused.json()["error"]["message"]


def test_feedback_on_the_version_that_answered_is_feedback_on_the_model(
    http: TestClient, backend: JobBackend, file: str
) -> None:
    for version in (1, 2):
        http.post("/v1/feedback", json={"model": f"ft:fake:local:s:v{version}", "text": "t", "correct_label": "b"})

    def begin_on(name: str) -> tuple[int, int | None]:
        answer = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": f"feedback:{name}"})
        return answer.status_code, backend.store.get(
            answer.json()["id"]
        ).feedback_until if answer.status_code == 200 else None

    assert [begin_on(f"ft:fake:local:s{version}") for version in ("", ":v1", ":v2", ":v3")] == [
        (200, 2),
        (200, 1),
        (200, 2),
        (422, None),
    ]


def test_a_file_that_a_job_needs_is_kept(http: TestClient, file: str) -> None:
    job = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file}).json()["id"]
    refused = http.delete(f"/v1/files/{file}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "file_in_use")
    http.post(f"/v1/fine_tuning/jobs/{job}/cancel")
    assert http.delete(f"/v1/files/{file}").status_code == 200


@pytest.mark.parametrize(
    ("query", "accept", "kind", "content"),
    [
        ("", "*/*", "application/json", '"message": "newest"'),
        ("", "text/markdown", "text/markdown; charset=utf-8", "- fine: rows of each label. newest"),
        ("?format=md", "*/*", "text/markdown; charset=utf-8", "- fine: rows of each label. newest"),
        ("?format=json", "text/markdown", "application/json", '"message": "newest"'),
    ],
)
def test_the_newest_report_is_shown(
    http: TestClient, backend: JobBackend, file: str, tmp_path: Path, query: str, accept: str, kind: str, content: str
) -> None:
    job = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file}).json()["id"]
    missing = http.get(f"/v1/fine_tuning/jobs/{job}/report")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "job_not_found")
    newest = Report([Finding.of("data", "class_counts", "ok", 1.0, None, "newest")]).to_bytes()
    for attempt, json_report in ((2, b"old"), (10, newest)):
        directory = tmp_path / "jobs" / job / f"attempt-{attempt}"
        directory.mkdir(parents=True)
        (directory / "report.json").write_bytes(json_report)
    answer = http.get(f"/v1/fine_tuning/jobs/{job}/report{query}", headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert content in answer.text


@pytest.mark.parametrize("checked", [True, False])
def test_the_report_of_a_failed_job_begins_with_the_reason(
    http: TestClient, backend: JobBackend, file: str, tmp_path: Path, *, checked: bool
) -> None:
    job = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file}).json()["id"]
    begun = begin(backend, job)
    if checked:
        directory = tmp_path / "jobs" / job / "attempt-1"
        directory.mkdir(parents=True)
        (directory / "report.json").write_bytes(Report().to_bytes())
    backend.store.fail(begun, Failure("one_class", "expected two labels, got <b>", "training_file"))
    path = f"/v1/fine_tuning/jobs/{job}/report"
    content = http.get(path).json()
    assert next(iter(content.items())) == (
        "error",
        {"code": "one_class", "message": "expected two labels, got <b>", "param": "training_file"},
    )
    assert [rung["status"] for rung in content["rungs"]] == ["not run"] * 5
    markdown = http.get(f"{path}?format=md").text
    title = markdown.partition("\n")[0].removeprefix("# ")
    assert job in title
    begins = f"# {title}\n\n**The job failed** (one_class): expected two labels, got \\<b>\n\nNothing was checked."
    assert markdown.startswith(begins)
    page = http.get(f"{path}?format=html").text
    assert (
        f"<h1>{title}</h1><p class=fail><b>The job failed</b> (one_class): expected two labels, got &lt;b&gt;</p>"
        in page
    )


def test_a_queued_job_says_that_no_worker_is_running(http: TestClient, backend: JobBackend, file: str) -> None:
    body = {"model": "fake", "training_file": file}
    made = http.post("/v1/fine_tuning/jobs", json=body).json()
    path = f"/v1/fine_tuning/jobs/{made['id']}"

    def waiting() -> list[str | None]:
        return [http.get(path).json()["waiting"], http.get("/v1/fine_tuning/jobs").json()["data"][0]["waiting"]]

    none = "no worker is running; start one with 'sonde worker'"
    assert [made["waiting"], *waiting()] == [none] * 3
    begin(backend, made["id"])
    assert waiting() == [None, None], "it has begun"
    second = http.post("/v1/fine_tuning/jobs", json=body).json()
    assert (second["status"], second["waiting"]) == ("queued", None), "a worker is running"


@pytest.mark.parametrize("after", ["x", "ftevent-", "ftevent-x", "ftevent-" + "9" * 30, "ftckpt-1"])
def test_a_cursor_that_is_none_is_refused(http: TestClient, file: str, after: str) -> None:
    job = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file}).json()["id"]
    answer = http.get(f"/v1/fine_tuning/jobs/{job}/events", params={"after": after})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "after")


@pytest.mark.parametrize("key", ['a"b', "a\\b", ""])
def test_a_metadata_key_that_cannot_be_asked_for_is_refused(http: TestClient, file: str, key: str) -> None:
    made = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file, "metadata": {key: "x"}})
    asked = http.get("/v1/fine_tuning/jobs", params={f"metadata[{key}]": "x"})
    assert (made.status_code, asked.status_code) == (422, 422)


@pytest.mark.parametrize(("keys", "status"), [(16, 200), (17, 422), (3000, 422)])
def test_more_metadata_than_a_job_can_have_is_refused(http: TestClient, keys: int, status: int) -> None:
    answer = http.get("/v1/fine_tuning/jobs", params={f"metadata[{number}]": "x" for number in range(keys)})
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["param"] == "metadata"


@pytest.mark.parametrize(
    "path",
    ["files/a%00b", "fine_tuning/jobs/a%00b", "files?after=a%00b", "files?purpose=%00", "fine_tuning/jobs?after=%00"],
)
def test_nul_is_in_no_id(http: TestClient, file: str, path: str) -> None:
    assert http.get(f"/v1/{path}").status_code in (404, 422) or path == "files?purpose=%00"


def test_metadata_filters_the_list(http: TestClient, file: str) -> None:
    for team in ("a", "b"):
        http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file, "metadata": {"team": team}})
    found = http.get("/v1/fine_tuning/jobs", params={"metadata[team]": "a"}).json()["data"]
    assert [job["metadata"] for job in found] == [{"team": "a"}]


def test_jobs_need_a_key_that_may_train(application: FastAPI, http: TestClient) -> None:
    ring = Keyring(application.state.settings.keys_file)
    infer, train = ring.create(["infer"])[1], ring.create(["train"])[1]
    paths = ["/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/x", "/v1/fine_tuning/jobs/x/report"]
    assert {http.get(path, headers={"x-api-key": infer}).status_code for path in paths} == {403}
    assert http.post("/v1/fine_tuning/jobs/x/cancel", headers={"x-api-key": infer}).status_code == 403
    assert [http.get(path, headers={"x-api-key": train}).status_code for path in paths] == [200, 404, 404]


def test_while_the_database_is_away_jobs_are_503_and_the_rest_goes_on(make_app: MakeApp) -> None:
    application = make_app(FakeModel(), database_url="postgresql://sonde@127.0.0.1:1/none")
    with TestClient(application) as client:
        away = client.get("/v1/fine_tuning/jobs")
        assert (away.status_code, away.json()["error"]["code"], away.headers["retry-after"]) == (
            503,
            "unavailable",
            "2",
        )
        assert client.post("/v1/embeddings", json={"model": "fake", "input": "a"}).status_code == 200


def test_a_job_made_before_there_is_any_worker_waits_for_one(http: TestClient, backend: JobBackend, file: str) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file})
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    assert begin(backend, answer.json()["id"]).status == "validating_files"


def test_many_callers_at_once_get_a_job_each(http: TestClient, file: str) -> None:
    answers: list[int] = []

    def ask() -> None:
        answers.append(http.post("/v1/fine_tuning/jobs", json={"model": "fake", "training_file": file}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 12
    assert len(http.get("/v1/fine_tuning/jobs").json()["data"]) == 12


# --- numbers
# ------------------------------------------------------------------------------------------------------------


def sensor_job(
    http: TestClient, file: str, task: str = "anomaly", model: str = "sensors", **hyperparameters: object
) -> Any:
    method = {"type": "supervised", "supervised": {"task": task, "hyperparameters": hyperparameters}}
    return http.post(
        "/v1/fine_tuning/jobs", json={"model": model, "training_file": file, "suffix": "pump", "method": method}
    )


@pytest.mark.parametrize(
    ("task", "more"), [("anomaly", {"kind": "records"}), ("anomaly", {"kind": "series"}), ("forecast", {"horizon": 12})]
)
def test_sensor_models_begin_with_nothing(
    http: TestClient, backend: JobBackend, file: str, task: str, more: dict[str, Any]
) -> None:
    answer = sensor_job(http, file, task, **more)
    assert answer.status_code == 200, answer.text
    job = backend.store.get(answer.json()["id"])
    assert (job.base, job.base_spec, job.task, job.name) == ("sensors", "sensors", task, "ft:sensors:local:pump")


@pytest.mark.parametrize(
    ("task", "model", "more", "param", "code"),
    [
        ("classification", "sensors", {}, "model", "wrong_task"),
        ("rerank", "sensors", {}, "model", "wrong_task"),
        ("forecast", "fake", {}, "model", "wrong_task"),
        ("anomaly", "fake", {"kind": "series"}, "model", "wrong_task"),
        ("anomaly", "ft:sensors:local:pump", {"kind": "series"}, "model", "wrong_task"),
        ("anomaly", "sensors", {}, "method.supervised.hyperparameters.kind", "invalid_value"),
        ("anomaly", "sensors", {"kind": "texts"}, "method.supervised.hyperparameters.kind", "invalid_value"),
    ],
)
def test_a_base_of_the_wrong_kind_is_refused(
    http: TestClient,
    application: FastAPI,
    file: str,
    task: str,
    model: str,
    more: dict[str, str],
    param: str,
    code: str,
) -> None:
    put_in_service(application.state.manager, FakeSensor())
    answer = sensor_job(http, file, task, model, **more)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (422, param, code), error


def test_a_kind_of_lists_within_lists_is_refused_as_any_other(http: TestClient) -> None:
    supervised = b'{"task": "anomaly", "hyperparameters": {"kind": %s}}' % (b"[" * 1015 + b"]" * 1015)
    body = (
        b'{"model": "sensors", "training_file": "f", "method": {"type": "supervised", "supervised": %s}}' % supervised
    )
    answer = http.post("/v1/fine_tuning/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"].endswith("expected records or series, got a list of 1")


@pytest.mark.parametrize(
    ("task", "status"), [("classification", 422), ("anomaly", 422), ("embedding", 422), ("rerank", 200)]
)
def test_a_reranker_is_the_base_of_rerankers_alone(
    make_app: MakeApp, backend: JobBackend, file: str, task: str, status: int
) -> None:
    made = make_app(FakeModel(task="rerank"))
    made.state.jobs.close()
    made.state.jobs = backend
    with TestClient(made) as client:
        answer = sensor_job(client, file, task, "fake")
    assert answer.status_code == status, answer.text
    if status == 422:
        assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("wrong_task", "model")


def test_feedback_on_texts_trains_no_sensor_model(http: TestClient) -> None:
    answer = sensor_job(http, "feedback:fake", kind="records")
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "training_file")


@pytest.fixture
def reported(http: TestClient, tmp_path: Path, file: str) -> str:
    """A job whose report has plots."""
    job: str = sensor_job(http, file, kind="series").json()["id"]
    directory = tmp_path / "jobs" / job / "attempt-1"
    directory.mkdir(parents=True)
    finding = {"check": "<script>", "status": "warn", "message": "a & b", "remedy": "look"}
    rungs = [
        {"rung": "data", "status": "warn", "findings": [finding]},
        {"rung": "loss", "status": "not run", "findings": []},
    ]
    report = {"object": "fine_tuning.report", "status": "warn", "rungs": rungs, "plots": {**PLOTS, "training": None}}
    (directory / "report.json").write_text(json.dumps(report))
    return f"/v1/fine_tuning/jobs/{job}/report"


@pytest.mark.slow
def test_a_report_leads_to_its_plots(http: TestClient, reported: str) -> None:
    files = http.get(reported).json()["plot_files"]
    assert files == {name: f"{reported}/plots/{name}.svg" for name in ("series", "contributions")}
    assert http.get(files["series"]).headers["content-type"] == "image/svg+xml"
    assert http.get(f"{reported}/plots/contributions.png").content.startswith(b"\x89PNG")
    assert (
        f"![Held-out readings, their scores and the alarms]({files['series']})"
        in http.get(f"{reported}?format=md").text
    )
    for missing in ("training.svg", "series.pdf", "series", "nothing.svg"):
        assert http.get(f"{reported}/plots/{missing}").status_code == 404


@pytest.mark.slow
def test_a_report_is_a_page_that_needs_no_other_file(http: TestClient, reported: str) -> None:
    for page in (http.get(f"{reported}?format=html"), http.get(reported, headers={"accept": "text/html"})):
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.text.count("data:image/svg+xml;base64,") == 2
        assert "<script>" not in page.text
        assert "&lt;script&gt;" in page.text
        assert "a &amp; b" in page.text


def test_a_page_shows_what_is_taken_for_what_and_the_events(http: TestClient, tmp_path: Path, file: str) -> None:
    job: str = sensor_job(http, file, kind="series").json()["id"]
    directory = tmp_path / "jobs" / job / "attempt-1"
    directory.mkdir(parents=True)
    evil, report = "<b>card|[x](y)", Report()
    report.confusion = Confusion.of([evil, "top up"], np.array([0, 0, 1]), np.array([1, 0, 1]), [evil] * 3, [2, 3, 4])
    event = ReportedEvent(
        "2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z", "2026-11-01T00:30:00Z", 5, "high", 0.001, (evil,), None
    )
    report.events = ReportedEvents(1, 0.05, (event,))
    report.plots = {"calibration": LABEL_PLOTS["calibration"]}
    (directory / "report.json").write_bytes(report.to_bytes())
    address = f"/v1/fine_tuning/jobs/{job}/report"
    read = http.get(address).json()
    assert read["confusion"]["pairs"][0]["examples"] == [{"line": 2, "text": evil}]
    assert (read["events"]["found"], list(read["plot_files"])) == (1, ["calibration"])
    page = http.get(f"{address}?format=html").text
    assert "<b>card" not in page
    assert "&#x27;&lt;b&gt;card|[x](y)&#x27; was taken for &#x27;top up&#x27; in 1 of its 2 held-out rows." in page
    assert "<td>high<td>0.001<td>&lt;b&gt;card" in page
    assert "<td style='background:rgb(44 111 187/60%)'>1" in page
    markdown = http.get(f"{address}?format=md").text
    assert "| 5 | high | 0.001 |" in markdown
    assert "  - row 2: \\<b>card|[x]\\(y)" in markdown


def test_a_page_shows_pictures_and_runs_nothing_of_them(http: TestClient, tmp_path: Path, file: str) -> None:
    job = sensor_job(http, file, "classification", "fake").json()["id"]
    directory = tmp_path / "jobs" / job / "attempt-1"
    directory.mkdir(parents=True)
    evil, report = "<img src=x onerror=y>'", Report()
    uri = "data:image/png;base64,AAAA"
    truth, predicted = np.array([0, 1]), np.array([1, 1])
    report.confusion = Confusion.of(["a", "b"], truth, predicted, [evil] * 2, [2, 3], lambda row: uri)
    report.pictures = (Picture("Strange", evil, uri), Picture("Strange", "x", "javascript:alert(1)"))
    (directory / "report.json").write_bytes(report.to_bytes())
    address = f"/v1/fine_tuning/jobs/{job}/report"
    read = http.get(address).json()
    assert read["confusion"]["pairs"][0]["examples"] == [{"line": 2, "text": evil, "picture": uri}]
    assert read["pictures"][0] == {"title": "Strange", "caption": evil, "image": uri}
    page = http.get(f"{address}?format=html").text
    assert page.count(f"src='{uri}'") == 2
    assert "<img src=x" not in page
    assert "javascript:" not in page
    assert "## Strange" in http.get(f"{address}?format=md").text


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"accuracy": 1.0, "held_out_rows": 2.0}, "Its label is right for 2 of 2 held-out rows, too few to say more."),
        (
            {"accuracy": 0.95, "held_out_rows": 100.0},
            "Its label is right for 95.0% of 100 held-out rows (95 % interval 89% to 98%).",
        ),
    ],
)
def test_a_share_of_few_rows_is_a_count(
    backend: JobBackend, http: TestClient, file: str, metrics: dict[str, float], said: str
) -> None:
    job = backend.store.get(sensor_job(http, file, "classification", "fake").json()["id"])
    begun = begin(backend, job.id)
    backend.store.succeed(
        begun, Success(f"{job.name}:v1", 0, {"decision": "held", "metrics": metrics}), JobEvent("info", "done")
    )
    assert said in ReportSummary.of(backend.store.get(job.id), Report()).verdict


@pytest.mark.slow
def test_a_report_begins_with_title_verdict_and_metrics_in_every_form(
    http: TestClient, backend: JobBackend, reported: str
) -> None:
    job = backend.store.get(reported.split("/")[-2])
    metrics = {
        "primary": 0.98,
        "auroc": 0.9,
        "auroc_low": 0.8,
        "auroc_high": 0.97,
        "detector_faults_conv": 0.8,
        "held_out_rows": 300.0,
    }
    result = {"decision": "held", "why": "it is <worse>", "metrics": metrics, "incumbent_metrics": {"auroc": 0.95}}
    begun = begin(backend, job.id)
    backend.store.succeed(begun, Success(f"{job.name}:v1", 0, result), JobEvent("info", "done"))
    verdict = [
        f"{job.name}:v1 was held, so it does not serve: it is <worse>.",
        "In 90.0% of pairs, a known anomaly scores above a normal row.",
    ]
    title = f"Report of {job.name} ({job.id})"
    read = http.get(reported).json()
    assert (read["title"], read["verdict"]) == (title, verdict)
    labels = {one["name"]: (one["label"], one["served_before"]) for one in read["metrics"]}
    assert labels["primary"] == ("false-alarm score", None)
    assert labels["auroc"] == ("AUROC", 0.95)
    assert labels["detector_faults_conv"][0] == "AUROC of detector conv on injected faults"
    markdown = http.get(f"{reported}?format=md").text
    assert markdown.startswith(f"# {title}\n\n{verdict[0].replace('<', chr(92) + '<')}\n\n{verdict[1]}")
    assert "| AUROC | 0.9 (0.8 to 0.97) | 0.95 |" in markdown
    page = http.get(f"{reported}?format=html").text
    assert page.index(f"<h1>{title}") < page.index("it is &lt;worse&gt;") < page.index("<h2>What needs a look")
    assert page.index("<h2>What needs a look") < page.index("<h2>All checks</h2><details>")
    assert "primary" not in page
