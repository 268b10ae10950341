"""Hostile bodies and files: each has a bound on time and memory, and other callers are answered meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.campaign import hostile
from tests.campaign.conftest import Figure
from tests.support.processes import peak_mb, reset_peak, resident_mb
from tests.support.programs import program_path
from tests.support.server import Served, serving
from tests.support.size import Size

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.real, pytest.mark.timeout(0)]

MOST_S = 20.0
FILE_S = 30.0
FILE_MB = 2048


@dataclass
class Probe:
    """Asks `/health/live` again and again, and keeps the longest wait."""

    url: str
    worst_s: float = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        done = threading.Event()
        thread = threading.Thread(target=self._ask, args=(done,))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _ask(self, done: threading.Event) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as http:
            while not done.is_set():
                began = time.monotonic()
                assert http.get("/health/live").status_code == 200
                self.worst_s = max(self.worst_s, time.monotonic() - began)
                time.sleep(0.01)


def test_bodies_are_answered_within_bounds(tmp_path: Path, size: Size, figure: Figure) -> None:
    most_live_s = size.of(2.0, 0.25)  # the suite's other tests take the processor, too
    findings, worst_s, worst_live_s, worst_mb = [], 0.0, 0.0, 0.0
    bodies = hostile.bodies() if size.full else hostile.bodies()[::4]
    models = [hostile.MODEL, f"{hostile.PROGRAM}={program_path(hostile.PROGRAM)}", hostile.IMAGES]
    with serving(tmp_path, "--cache-mb", "0", *(flag for model in models for flag in ("--model", model))) as served:
        idle = resident_mb(served.process.pid)
        most_mb = 1.5 * idle + 256
        for body in bodies:
            probe = Probe(served.url)
            reset_peak(served.process.pid)
            status, seconds = _send(served, body, probe)
            peak = peak_mb(served.process.pid)
            worst_s, worst_live_s = max(worst_s, seconds), max(worst_live_s, probe.worst_s)
            worst_mb = max(worst_mb, peak)
            if status >= 500 or seconds > MOST_S or probe.worst_s > most_live_s or peak > most_mb:
                live = 1000 * probe.worst_s
                findings.append(f"{body.name}: {status} after {seconds:.1f} s, live {live:.0f} ms, {peak:.0f} MB")
    figure(
        f"{len(bodies)} bodies: at most {worst_s:.1f} s, live {1000 * worst_live_s:.0f} ms, {worst_mb:.0f} MB of "
        f"{most_mb:.0f}; {len(findings)} beyond"
    )
    assert findings == []


def _send(served: Served, body: hostile.Body, probe: Probe) -> tuple[int, float]:
    """Send a body; the status, 0 where the server closed the connection, and the seconds."""
    content = body.make()
    with probe.watching(), httpx.Client(base_url=served.url, timeout=120) as http:
        began = time.monotonic()
        try:
            answer = http.request(body.method, body.path, content=content, headers={"content-type": body.content_type})
            status = answer.status_code
        except (httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):  # it stopped to read, as it may
            status = 0
        return status, time.monotonic() - began


def test_files_are_read_within_bounds(tmp_path: Path, figure: Figure) -> None:
    paths = [tmp_path / file.name for file in hostile.files()]
    for path, file in zip(paths, hostile.files(), strict=True):
        path.write_bytes(file.make())
    command = [sys.executable, "-m", "tests.support.reading_process", *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    seen = [json.loads(line) for line in ended.stdout.splitlines()]
    findings = [one for one in seen if one[2] > FILE_S or one[3] > FILE_MB]
    worst_s, worst_mb = max(one[2] for one in seen), max(one[3] for one in seen)
    figure(f"{len(paths)} files: at most {worst_s:.1f} s and {worst_mb} MB; {len(findings)} beyond")
    assert len(seen) == 2 * len(paths)
    assert findings == []


def test_the_corpus_is_large_enough() -> None:
    names = [body.name for body in hostile.bodies()] + [file.name for file in hostile.files()]
    assert len(names) == len(set(names)) >= 150
