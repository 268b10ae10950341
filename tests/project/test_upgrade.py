"""Upgrades: a home folder that version 0.1.0 made serves the same answers, and its queued job is finished.

`tests/data/home-0.1.0.tar.xz` holds that home (classifier, two detectors, forecaster, alias, feedback, queued job) and
`expected.json`: requests, two of them with the state of a stream, and what 0.1.0 answered.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.processes import sonde_up
from tests.support.server import wait_until

pytestmark = [pytest.mark.real, pytest.mark.slow]

OLD_HOME = Path(__file__).parents[1] / "data" / "home-0.1.0.tar.xz"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(OLD_HOME) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(old: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((old / "expected.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def client(old: Path) -> Iterator[httpx.Client]:
    with sonde_up(old / "home") as (_, url), httpx.Client(base_url=url, timeout=60) as made:
        wait_until(lambda: made.get("/v1/models/current-support").status_code == 200, 60)
        yield made


def test_a_classifier_gives_the_same_labels_and_probabilities(client: httpx.Client, expected: dict[str, Any]) -> None:
    request, before = expected["classify"]["request"], expected["classify"]["answer"]
    for model in (request["model"], "current-support"):
        now = client.post("/v1/classify", json={**request, "model": model}).json()["data"]
        assert [item["label"] for item in now] == [item["label"] for item in before]
        assert [item["out_of_scope"] for item in now] == [item["out_of_scope"] for item in before]
        # Version 0.1.0 had one score, which said nothing of the scope.
        scores = [item["labels"][0]["score_in_scope"] for item in now]
        expected_scores = [item["labels"][0]["score"] for item in before]
        np.testing.assert_allclose(scores, expected_scores, atol=0.02)  # this machine may compute in another precision


@pytest.mark.parametrize("kind", ["series", "stream"])
def test_a_stream_continues_from_its_old_state(client: httpx.Client, expected: dict[str, Any], kind: str) -> None:
    request, before = expected[kind]["request"], expected[kind]["answer"]
    response = client.post("/v1/anomaly/score", json=request)
    assert response.status_code == 200, response.text
    now = response.json()["data"]
    for field in ("score", "p_value"):
        np.testing.assert_allclose([item[field] for item in now], [item[field] for item in before], rtol=1e-5)
    assert [item["is_anomaly"] for item in now] == [item["is_anomaly"] for item in before]


def test_a_forecaster_gives_the_same_means(client: httpx.Client, expected: dict[str, Any]) -> None:
    now = client.post("/v1/forecast", json=expected["forecast"]["request"]).json()["mean"]
    np.testing.assert_allclose(now, expected["forecast"]["answer"]["mean"], rtol=1e-5)


def test_the_queued_job_is_finished_and_the_old_ones_are_listed(client: httpx.Client, expected: dict[str, Any]) -> None:
    queued = expected["queued"]
    wait_until(lambda: client.get(f"/v1/fine_tuning/jobs/{queued}").json()["status"] in ("succeeded", "failed"), 180)
    jobs = client.get("/v1/fine_tuning/jobs").json()["data"]
    assert [job["status"] for job in jobs] == ["succeeded"] * 5
    assert jobs[0]["id"] == queued
    for job in jobs:
        assert client.get(f"/v1/fine_tuning/jobs/{job['id']}/report").status_code == 200


def test_feedback_is_kept(client: httpx.Client, old: Path, expected: dict[str, Any]) -> None:
    model = expected["classify"]["request"]["model"].removesuffix(":v1")
    answer = client.post("/v1/feedback", json={"model": model, "text": "stolen again", "correct_label": "lost_card"})
    assert answer.status_code == 200, answer.text
    with sqlite3.connect(old / "home" / "sonde.sqlite") as database:
        kept = [text for (text,) in database.execute("SELECT text FROM feedback ORDER BY seq")]
    assert kept == ["my card was stolen", "stolen again"]


def test_every_version_in_service_is_the_old_one(client: httpx.Client, expected: dict[str, Any]) -> None:
    served = {model["id"] for model in client.get("/v1/models").json()["data"]}
    names = {
        expected[kind]["request"]["model"].removesuffix(":v1") for kind in ("classify", "series", "stream", "forecast")
    }
    assert names <= served, served
