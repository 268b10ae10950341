"""A home on a full and on a read-only file system: writes are refused by name, and everything else goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.campaign.conftest import Figure
from tests.support import tiny_models
from tests.support.server import Served, serving

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(300)]

MODEL = "all-MiniLM-L6-v2"
ROWS = b'{"text": "a", "label": "b"}\n' * 1000


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of 16 MB in memory."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can be mounted only by root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(home: Path) -> None:
    with (home / "fill").open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"\0" * 4096)
        except OSError:
            return


def empty(home: Path) -> None:
    (home / "fill").unlink()


def test_a_full_disk_refuses_writes_and_reads_go_on(tmp_path: Path, figure: Figure) -> None:
    with (
        small_disk(tmp_path / "home") as home,
        serving_beside(tmp_path, home) as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        file = _upload(http).json()["id"]
        fill(home)
        refused, answered = _write(http, file), _read(http, file)
        empty(home)
        after = _write(http, file)
    figure(f"full: {_told(refused)}")
    assert {answer.status_code for answer in refused.values()} == {507}, _told(refused)
    assert {answer.json()["error"]["code"] for answer in refused.values()} == {"disk_full"}
    assert answered == [200] * len(READS)
    assert {answer.status_code for answer in after.values()} == {200}, _told(after)


def test_a_read_only_home_refuses_writes_and_models_answer(tmp_path: Path, figure: Figure) -> None:
    with small_disk(tmp_path / "home") as home:
        with serving_beside(tmp_path, home) as served, httpx.Client(base_url=served.url, timeout=60) as http:
            file = _upload(http).json()["id"]
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        with serving_beside(tmp_path, home) as served, httpx.Client(base_url=served.url, timeout=60) as http:
            refused = _write(http, file)
            assert READS[0](http, file).status_code == 200
    figure(f"read-only: {_told(refused)}")
    assert {answer.status_code for answer in refused.values()} <= {503, 507}, _told(refused)


def _write(http: httpx.Client, file: str) -> dict[str, httpx.Response]:
    return {name: write(http, file) for name, write in WRITES.items()}


def _read(http: httpx.Client, file: str) -> list[int]:
    return [read(http, file).status_code for read in READS]


def _told(answers: dict[str, httpx.Response]) -> str:
    return ", ".join(f"{name} {answer.status_code}" for name, answer in answers.items())


@contextmanager
def serving_beside(tmp_path: Path, home: Path) -> Iterator[Served]:
    """A server of a tiny model, whose log is not on the small disk."""
    (logs := tmp_path / "logs").mkdir(exist_ok=True)
    if not (model := tmp_path / "model").exists():
        tiny_models.encoder(model)
    with serving(logs, "--home", str(home), "--model", f"{MODEL}={model}") as served:
        yield served


def _upload(http: httpx.Client) -> httpx.Response:
    return http.post("/v1/files", files={"file": ("a.jsonl", ROWS)}, data={"purpose": "fine-tune"})


def _start_job(http: httpx.Client, file: str) -> httpx.Response:
    return http.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": file, "suffix": "a" * 40})


def _send_feedback(http: httpx.Client, file: str) -> httpx.Response:
    return http.post("/v1/feedback", json={"model": MODEL, "text": "a" * 5000, "correct_label": "b"})


WRITES: dict[str, Callable[[httpx.Client, str], httpx.Response]] = {
    "upload": lambda http, file: _upload(http),
    "job": _start_job,
    "feedback": _send_feedback,
}
READS: list[Callable[[httpx.Client, str], httpx.Response]] = [
    lambda http, file: http.post("/v1/embeddings", json={"model": MODEL, "input": "still here"}),
    lambda http, file: http.get(f"/v1/files/{file}/content"),
    lambda http, file: http.get("/v1/fine_tuning/jobs"),
    lambda http, file: http.get("/v1/models"),
]
