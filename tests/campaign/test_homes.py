"""Two services on one home, a port that is taken, and a home that is deleted."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.campaign.conftest import Figure
from tests.support.jobs import JobHarness
from tests.support.processes import SONDE, sonde_up
from tests.support.server import serving, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.real, pytest.mark.timeout(600)]

MODEL = "all-MiniLM-L6-v2"
ROWS = "".join(f'{{"text": "{word} {n}", "label": "{word}"}}\n' for n in range(12) for word in ("card", "money"))


def test_two_services_share_a_home(tmp_path: Path, figure: Figure) -> None:
    with sonde_up(tmp_path) as (_, one), sonde_up(tmp_path) as (_, other):
        jobs = [_start_job(url, number) for number, url in enumerate((one, other, one, other))]
        for url in (other, one):
            wait_until(lambda url=url: all(_status(url, job) == "succeeded" for job in jobs), 240)  # type: ignore[misc]
        names = [f"ft:{MODEL}:local:team-{number}" for number in range(4)]
        for url in (one, other):
            wait_until(lambda url=url: set(names) <= _models(url), 30)  # type: ignore[misc]
    harness = JobHarness(tmp_path)
    assert [harness.get(job).attempt for job in jobs] == [1] * 4
    assert [harness.promotions(job) for job in jobs] == [1] * 4
    harness.close()
    figure("two services on one home: 4 jobs, each run once, served by both")


def test_a_port_that_is_taken_ends_the_start_at_once(tmp_path: Path, figure: Figure) -> None:
    with serving(tmp_path) as served:
        (other := tmp_path / "other").mkdir()
        port = served.url.rpartition(":")[2]
        began = time.monotonic()
        ended = subprocess.run(
            [*SONDE, "up", "--port", port, "--home", str(other)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (ended.returncode, "Address already in use" in ended.stderr) == (1, True), ended.stderr
        assert _embed(served.url).status_code == 200
    figure(f"taken port: exit code 1 after {time.monotonic() - began:.0f} s")


def test_a_deleted_home_leaves_models_serving_and_nothing_open(tmp_path: Path, figure: Figure) -> None:
    (home := tmp_path / "home").mkdir()
    with serving(home) as served:
        assert _embed(served.url).status_code == 200
        shutil.rmtree(home)
        time.sleep(2.5)  # the registry is looked at each second
        assert _embed(served.url).status_code == 200
        uploaded = httpx.post(
            f"{served.url}/v1/files", files={"file": ("a.jsonl", ROWS)}, data={"purpose": "fine-tune"}, timeout=60
        )
        assert uploaded.status_code in (200, 503, 507), uploaded.text
        figure(f"deleted home: embeddings 200, upload {uploaded.status_code}")
        home.mkdir(exist_ok=True)
        assert served.stop() == 0


def _embed(url: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/embeddings", json={"model": MODEL, "input": "still here"}, timeout=60)


def _start_job(url: str, number: int) -> str:
    file = {"file": ("a.jsonl", ROWS)}
    uploaded = httpx.post(f"{url}/v1/files", files=file, data={"purpose": "fine-tune"}, timeout=60).json()["id"]
    method = {"type": "supervised", "supervised": {"hyperparameters": {"mode": "frozen"}}}
    body = {"model": MODEL, "training_file": uploaded, "suffix": f"team-{number}", "method": method}
    answer = httpx.post(f"{url}/v1/fine_tuning/jobs", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def _status(url: str, job: str) -> str:
    found = httpx.get(f"{url}/v1/fine_tuning/jobs/{job}", timeout=60).json()
    assert found["status"] != "failed", found["error"]
    return str(found["status"])


def _models(url: str) -> set[str]:
    return {model["id"] for model in httpx.get(f"{url}/v1/models", timeout=60).json()["data"]}
