"""`sonde up` and `sonde worker` as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from service.config import Settings
from service.errors import ConfigError, Unavailable
from service.processes.up import up
from tests.support.jobs import JobHarness, exists
from tests.support.processes import children, sonde_up
from tests.support.programs import PROGRAM
from tests.support.server import wait_until

pytestmark = [pytest.mark.real, pytest.mark.slow]


def commands(pid: int) -> dict[str, int]:
    """Process ids of `serve` and `worker`, once `sonde up` has started both and they bear their names as forks do."""

    def named() -> dict[str, int]:
        return {Path(f"/proc/{child}/comm").read_text().strip(): child for child in children(pid)}

    wait_until(lambda: named().keys() >= {"serve", "worker"}, 20)
    return named()


def worker_of(harness: JobHarness) -> frozenset[str]:
    try:
        return harness.leases.workers()
    except Unavailable:
        return frozenset()


def test_both_run_a_dead_worker_is_started_again_and_both_end(tmp_path: Path) -> None:
    harness = JobHarness(tmp_path)
    with sonde_up(tmp_path, *PROGRAM) as (process, url):
        wait_until(lambda: len(worker_of(harness)) == 1, 30)
        first, before = commands(process.pid), worker_of(harness)
        os.kill(first["worker"], signal.SIGKILL)
        wait_until(lambda: bool(worker_of(harness) - before), 30)
        assert httpx.get(f"{url}/health/ready").status_code == 200
        now = commands(process.pid)
        assert now["serve"] == first["serve"]
        assert now["worker"] != first["worker"]
        process.terminate()
        assert process.wait(40) == 0
        assert not any(exists(now[command]) for command in ("serve", "worker"))
    harness.close()


def test_a_first_start_logs_no_migration_and_when_serve_ends_so_does_the_worker(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    with sonde_up(tmp_path, *PROGRAM) as (process, _):
        wait_until(lambda: "worker ready" in log.read_text(), 30)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line for line in lines if line["logger"].partition(".")[0] not in {"sonde", "service", "models"}] == []
        assert [line["message"] for line in lines if "migrat" in line["message"].lower()] == []
        both = commands(process.pid)
        os.kill(both["serve"], signal.SIGTERM)
        assert process.wait(40) == 0
        wait_until(lambda: not exists(both["worker"]), 5)


def test_when_serve_is_killed_the_log_says_so(tmp_path: Path) -> None:
    with sonde_up(tmp_path, *PROGRAM) as (process, _):
        os.kill(commands(process.pid)["serve"], signal.SIGKILL)
        assert process.wait(40) == 128 + signal.SIGKILL
    assert "signal 9 ended the server" in (tmp_path / "up.log").read_text()


def test_nothing_is_left_when_up_is_killed(tmp_path: Path) -> None:
    with sonde_up(tmp_path, *PROGRAM) as (process, _):
        both = commands(process.pid)
        process.kill()
        wait_until(lambda: not any(exists(both[command]) for command in ("serve", "worker")), 40)


def test_what_serve_cannot_do_ends_up_with_its_code(tmp_path: Path) -> None:
    model = str(tmp_path / "a directory without a model")
    Path(model).mkdir()
    command = [sys.executable, "-m", "service.cli", "up", "--port", "0", "--home", str(tmp_path), "--model", model]
    began = time.monotonic()
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 1
    assert time.monotonic() - began < 40


def test_a_metrics_port_without_a_next_one_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.processes.up._start", lambda command, flags: pytest.fail(f"{command} was started"))
    with pytest.raises(ConfigError, match="--metrics-port"):
        up(Settings(metrics_port=65535), [], [])


def test_a_metrics_port_whose_next_one_is_the_apis_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.processes.up._start", lambda command, flags: pytest.fail(f"{command} was started"))
    with pytest.raises(ConfigError, match="the next port, which is --port; got 7999"):
        up(Settings(port=8000, metrics_port=7999), [], [])


def test_a_database_of_another_kind_ends_up_with_2(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "up",
        "--port",
        "0",
        "--home",
        str(tmp_path),
        "--database-url",
        "mysql://a:secret@b/c",
    ]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
    assert ended.returncode == 2
    assert "expected postgresql://" in ended.stderr
    assert "secret" not in ended.stderr
