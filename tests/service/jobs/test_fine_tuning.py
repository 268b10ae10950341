"""From a file of examples to a better model in service, and back: real processes, the real MiniLM, the openai
client.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.support import intents
from tests.support.databases import postgres
from tests.support.processes import sonde_up, sonde_worker
from tests.support.server import serving, wait_until

pytestmark = [pytest.mark.real, pytest.mark.slow]

BASE = "all-MiniLM-L6-v2"
FROZEN = {"type": "supervised", "supervised": {"task": "classification", "hyperparameters": {"mode": "frozen"}}}
PATIENCE_S = 240.0


class Team:
    """A chatbot team and its client."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=2)
        self.train, self.held_out = intents.rows()

    def start(self, *, seed: int = 7, suffix: str = "support") -> FineTuningJob:
        uploaded = self.client.files.create(file=("intents.jsonl", intents.jsonl(self.train)), purpose="fine-tune")
        method: Any = FROZEN
        return self.client.fine_tuning.jobs.create(
            model=BASE, training_file=uploaded.id, suffix=suffix, seed=seed, method=method
        )

    def finish(self, job: FineTuningJob) -> FineTuningJob:
        deadline = time.monotonic() + PATIENCE_S
        while (now := self.client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed", "cancelled"):
            assert time.monotonic() < deadline, now
            time.sleep(0.2)
        return now

    def classify(self, model: str, texts: list[str], **more: object) -> list[dict[str, Any]]:
        answer: Any = self.client.post("/classify", body={"model": model, "input": texts, **more}, cast_to=object)
        data: list[dict[str, Any]] = answer["data"]
        return data

    def accuracy(self, model: str, **more: object) -> float:
        given = self.classify(model, [row["text"] for row in self.held_out], **more)
        right = [bool(item["label"] == row["label"]) for item, row in zip(given, self.held_out, strict=True)]
        return sum(right) / len(right)

    def post(self, path: str, **body: object) -> Any:
        return self.client.post(path, body=body, cast_to=object)

    def get(self, path: str) -> Any:
        return self.client.get(path, cast_to=object)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with sonde_up(tmp_path_factory.mktemp("up")) as (_, url):
        made = Team(url)
        yield made
        made.client.close()


@pytest.fixture(scope="module")
def model(team: Team) -> str:
    """The first version, as its job left it."""
    done = team.finish(team.start())
    assert done.status == "succeeded", done.error
    name = f"ft:{BASE}:local:support:v1"
    assert done.fine_tuned_model == name
    wait_until(
        lambda: any(listed.id == "ft:all-MiniLM-L6-v2:local:support" for listed in team.client.models.list().data), 5
    )
    return name


def test_the_job_tells_what_it_did(team: Team, model: str) -> None:
    [job] = [one for one in team.client.fine_tuning.jobs.list().data if one.fine_tuned_model == model]
    events = list(team.client.fine_tuning.jobs.list_events(job.id))
    assert len(events) > 2
    report = team.get(f"/fine_tuning/jobs/{job.id}/report")
    assert report["status"] in ("ok", "warn")
    run = [rung["rung"] for rung in report["rungs"] if rung["findings"]]
    assert set(run) >= {"data", "forward", "outcome"}
    assert "## 1. Data" in httpx.get(f"{team.url}/v1/fine_tuning/jobs/{job.id}/report?format=md").text


def test_the_model_is_better_than_zero_shot_on_rows_it_never_saw(team: Team, model: str) -> None:
    labels = sorted({row["label"] for row in team.train})
    zero_shot, trained = team.accuracy(BASE, labels=labels), team.accuracy(model)
    assert trained > zero_shot + 0.2
    assert trained >= 0.8


def test_it_knows_what_is_out_of_scope(team: Team, model: str) -> None:
    strange = team.classify(model, list(intents.OUT_OF_SCOPE))
    assert sum(item["out_of_scope"] for item in strange) >= 3
    others, _ = intents.rows(seed=1)  # the same questions, opened and ended otherwise
    usual = team.classify(model, [row["text"] for row in others])
    assert sum(item["out_of_scope"] for item in usual) <= len(usual) * 0.15


def test_a_second_version_is_served_and_rolled_back(team: Team, model: str) -> None:
    name = model.rpartition(":")[0]
    again = team.finish(team.start(seed=8))
    assert again.status == "succeeded", again.error
    assert team.get(f"/models/{name}/versions")["data"]
    team.post(f"/models/{name}/promote", version=2)
    wait_until(lambda: served_by(team, name) == f"{name}:v2", 5)
    team.post(f"/models/{name}/rollback")
    wait_until(lambda: served_by(team, name) == f"{name}:v1", 5)
    assert [line["action"] for line in team.get(f"/models/{name}/ledger")["data"]][-1] == "rollback"


def served_by(team: Team, name: str) -> str:
    answer = httpx.post(f"{team.url}/v1/classify", json={"model": name, "input": "hello"})
    return answer.headers["x-sonde-model"]


def test_bad_rows_fail_the_job_with_code_and_place(team: Team) -> None:
    uploaded = team.client.files.create(
        file=("bad.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b"}\n'), purpose="fine-tune"
    )
    done = team.finish(team.client.fine_tuning.jobs.create(model=BASE, training_file=uploaded.id))
    assert done.status == "failed"
    assert done.error is not None
    assert done.error.param == "training_file"
    assert "2" in done.error.message, "the line"


@pytest.mark.long  # test_worker_deaths.py kills workers on PostgreSQL, too, with a trainer that learns nothing
def test_two_workers_on_postgresql_one_of_them_killed(tmp_path: Path) -> None:
    with postgres() as server, ExitStack() as stack:
        url = server.new_database()
        flags = ("--database-url", url, "--job-lease-s", "2")
        served = stack.enter_context(serving(tmp_path, *flags))
        team = Team(served.url)
        stack.callback(team.client.close)
        one, other = (stack.enter_context(sonde_worker(tmp_path, *flags)) for _ in range(2))
        jobs = [team.start(suffix=f"team-{number}") for number in range(2)]
        wait_until(lambda: any(team.client.fine_tuning.jobs.retrieve(job.id).status == "running" for job in jobs), 60)
        os.kill(one.pid, signal.SIGKILL)
        done = [team.finish(job) for job in jobs]
        assert [job.status for job in done] == ["succeeded"] * 2, [job.error for job in done]
        assert other.poll() is None
        for job in done:
            assert job.fine_tuned_model is not None
            name = job.fine_tuned_model.rpartition(":")[0]
            assert [line["action"] for line in team.get(f"/models/{name}/ledger")["data"]].count("promote") == 1
            assert team.accuracy(job.fine_tuned_model) >= 0.8
