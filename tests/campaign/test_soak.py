"""Every kind of request for hours, trainings and promotions among them: memory stays where it was."""

from __future__ import annotations

import itertools
import json
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.campaign.conftest import Figure
from tests.support import intents
from tests.support.processes import children, open_files, resident_mb, sonde_up
from tests.support.size import Size

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.real, pytest.mark.timeout(0)]

MODEL = "all-MiniLM-L6-v2"
MOST_GROWTH_MB = 50
WAIT_S = 120.0  # others may use the machine, too
FLAGS = ("--cache-mb", "2", "--receive-timeout-s", "5")


class Load:
    """Requests of every kind, in turn, with texts that no cache has."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=WAIT_S)
        self._numbers = itertools.count()
        self._train, _ = intents.rows()
        self.statuses: Counter[int] = Counter()
        self.unexpected: list[str] = []
        self._kinds: list[Callable[[], None]] = [
            lambda: self._post("/v1/embeddings", input=self._texts(1)),
            lambda: self._post("/v1/embeddings", input=self._texts(16)),
            lambda: self._post("/v1/embeddings", input=self._texts(1)[0] * 100),
            lambda: self._post("/v1/classify", input=self._texts(2), labels=["card", "money", "weather"]),
            lambda: self._post("/v1/anomaly/score", input=self._texts(1), reference=self._texts(8)),
            lambda: self._post("/v1/rerank", query="card", documents=self._texts(4)),
            lambda: self._post("/v1/embeddings", 422, input=[]),
            lambda: self._post("/v1/embeddings", 404, model="none", input="a"),
            lambda: self._expect(self._http.get("/v1/models"), 200),
            lambda: self._expect(self._http.get("/v1/fine_tuning/jobs"), 200),
            lambda: self._expect(self._http.get("/metrics"), 200),
            lambda: self._expect(self._http.post("/v1/embeddings", content=b"{", headers=JSON), 400),
            self._hang_up,
            self._upload_and_delete,
            self.classify_if_trained,
        ]

    def __iter__(self) -> Iterator[Callable[[], None]]:
        return itertools.cycle(self._kinds)

    def close(self) -> None:
        self._http.close()

    def start_job(self) -> None:
        """Train a small classifier, which is promoted and swapped in."""
        uploaded = self._upload(intents.jsonl(self._train))
        hyperparameters = {"task": "classification", "hyperparameters": {"mode": "frozen"}}
        method = {"type": "supervised", "supervised": hyperparameters}
        asked = {"model": MODEL, "training_file": uploaded, "suffix": "soak", "seed": next(self._numbers)}
        self._expect(self._http.post("/v1/fine_tuning/jobs", json={**asked, "method": method}), 200)

    def classify_if_trained(self) -> None:
        answer = self._http.post("/v1/classify", json={"model": f"ft:{MODEL}:local:soak", "input": self._texts(2)})
        self._expect(answer, 200, 404)

    def _post(self, path: str, *expected: int, **body: object) -> None:
        self._expect(self._http.post(path, json={"model": MODEL, **body}), *(expected or (200,)))

    def _expect(self, answer: httpx.Response, *statuses: int) -> Any:
        self.statuses[answer.status_code] += 1
        if answer.status_code not in statuses:
            self.unexpected.append(f"{answer.request.method} {answer.request.url.path}: {answer.text[:200]}")
        return answer.json() if "json" in answer.headers["content-type"] else None

    def _texts(self, count: int) -> list[str]:
        return [f"where is the card number {next(self._numbers)} that I ordered" for _ in range(count)]

    def _upload(self, content: bytes) -> str:
        answer = self._http.post("/v1/files", files={"file": ("a.jsonl", content)}, data={"purpose": "fine-tune"})
        return str(self._expect(answer, 200)["id"])

    def _upload_and_delete(self) -> None:
        self._expect(self._http.delete(f"/v1/files/{self._upload(intents.jsonl(self._train))}"), 200)

    def _hang_up(self) -> None:
        parts = urlsplit(self._url)
        body = json.dumps({"model": MODEL, "input": self._texts(8)}).encode()
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=WAIT_S) as gone:
            gone.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


JSON = {"content-type": "application/json"}


def test_memory_stays_where_it_was(tmp_path: Path, pytestconfig: pytest.Config, size: Size, figure: Figure) -> None:
    seconds = pytestconfig.getoption("--seconds") or size.of(30.0, 7200.0)
    rate = size.of(10.0, 4.0)
    with sonde_up(tmp_path, *FLAGS) as (up, url), closing(Load(url)) as load:
        serve = children(up.pid)[0]
        seen = list(_soak(load, seconds, rate, serve, pytestconfig.getoption("--minutes")))
        assert up.poll() is None
    tenth = max(len(seen) // 10, 1)
    growth = statistics.median(seen[-tenth:]) - statistics.median(seen[2 * tenth : 3 * tenth])
    total = sum(load.statuses.values())
    figure(f"{growth:+.0f} MB in {seconds / 3600:.2g} h, {total} requests, {len(load.unexpected)} wrong answers")
    assert load.unexpected == []
    assert growth <= MOST_GROWTH_MB, seen


def _soak(load: Load, seconds: float, rate: float, serve: int, minutes: str | None) -> Iterator[float]:
    """Send requests at a rate, and a job every ten minutes; yield the megabytes of the server a hundred times."""
    began = time.monotonic()
    kinds = iter(load)
    next_look = next_line = next_job = began
    while (now := time.monotonic()) < began + seconds:
        next(kinds)()
        if now >= next_job:
            load.start_job()
            next_job = now + max(seconds / 12, 30.0)
        if now >= next_look:
            next_look = now + seconds / 100
            yield resident_mb(serve)
        if minutes and now >= next_line:
            next_line = now + 60
            line = [int(now - began), round(resident_mb(serve), 1), open_files(serve), dict(load.statuses)]
            with Path(minutes).open("a") as stream:
                stream.write(json.dumps([*line, load.unexpected[-3:]]) + "\n")
        time.sleep(max(0.0, now + 1 / rate - time.monotonic()))
