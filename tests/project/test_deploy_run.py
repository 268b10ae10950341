"""Each service of docker-compose.yml, started by the command that is written there; only addresses and directories
are others.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.project.test_deploy import PROMETHEUS, ROOT, SERVICES
from tests.support.databases import PasswordPostgres, postgres, program
from tests.support.server import free_port, wait_until

pytestmark = [pytest.mark.real, pytest.mark.slow]

PASSWORD = "of-a-test"
SONDE = [sys.executable, "-m", "service.cli"]


class Machine:
    """Stands for the containers: what they find at a name or in a directory is on a port, or in a directory, of this
    machine.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {name: free_port() for name in ("8000", "9100", "9101", "9090", "5432")}
        self.home = directory / "home"
        (directory / "metrics").mkdir()
        self.home.mkdir()

    def local(self, text: str) -> str:
        """A word of a command, or a file's text, as it has to be here."""
        places = {
            "/etc/prometheus/prometheus.yml": str(self.directory / "prometheus.yml"),
            "=/prometheus": f"={self.directory / 'metrics'}",
            "/var/lib/sonde": str(self.home),
            "${POSTGRES_PASSWORD:?write it into .env}": PASSWORD,
        }
        places |= {f"@postgres:{port}": f"@127.0.0.1:{here}" for port, here in self.ports.items()}
        places |= {f"{name}:{port}": f"127.0.0.1:{here}" for name in SERVICES for port, here in self.ports.items()}
        places |= {
            f"{host}:{port}": f"{host}:{here}" for host in ("127.0.0.1", "0.0.0.0") for port, here in self.ports.items()
        }
        for there, here in {
            **places,
            "scrape_interval: 15s": "scrape_interval: 1s",
            "scrape_timeout: 10s": "scrape_timeout: 1s",
        }.items():
            text = text.replace(there, here)
        return str(self.ports.get(text, text))

    def words(self, words: list[Any]) -> list[str]:
        return [self.local(str(word)) for word in words]

    def environment(self, service: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SONDE_", "PG"))}
        return own | {name: self.local(str(value)) for name, value in SERVICES[service].get("environment", {}).items()}

    def url(self, port: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def healthy(self, service: str) -> bool:
        """Run the health check as it is written."""
        command = self.words(SERVICES[service]["healthcheck"]["test"][1:])
        if command[0] == "python":
            command[0] = sys.executable
        command[0] = program(command[0]) or command[0]
        environment = {
            **self.environment(service),
            "PGPORT": str(self.ports["5432"]),
        }  # where pg_isready asks unless told
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    @contextmanager
    def running(self, service: str, entrypoint: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """A service by its command, ended by SIGTERM within its time."""
        command = [*entrypoint, *self.words(SERVICES[service]["command"])]
        with (self.directory / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=self.environment(service), stdout=log, stderr=log)
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, (self.directory / f"{service}.log").read_text()[-3000:]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @contextmanager
    def database(self) -> Iterator[None]:
        about = SERVICES["postgres"]
        name, *options = self.words(about["command"])
        assert name == "postgres"
        port = int(self.ports["5432"])
        with postgres(lambda directory: PasswordPostgres(directory, port, PASSWORD, " ".join(options))):
            with psycopg.connect(
                f"postgresql://sonde:{PASSWORD}@127.0.0.1:{port}/postgres", autocommit=True
            ) as connection:
                connection.execute(f"CREATE DATABASE {about['environment']['POSTGRES_DB']}".encode())
            yield


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("Prometheus is not installed")
    made = Machine(tmp_path_factory.mktemp("machine"))
    (made.directory / "prometheus.yml").write_text(made.local(PROMETHEUS.read_text()))
    with ExitStack() as stack:
        stack.enter_context(made.database())
        for service, entrypoint in (("worker", SONDE), ("prometheus", [prometheus])):
            stack.enter_context(made.running(service, entrypoint))
        create_key(made)
        stack.enter_context(made.running("api", SONDE))
        for service in SERVICES:
            if service != "prometheus" or shutil.which("wget"):
                wait_until(lambda service=service: made.healthy(service), 90)  # type: ignore[misc]
        yield made


def create_key(machine: Machine) -> None:
    """As deploy/README.md says."""
    command = [*SONDE, "keys", "create", "--scope", "admin", "--name", "me"]
    made = subprocess.run(command, env=machine.environment("api"), capture_output=True, text=True, check=True)
    (machine.directory / "key").write_text(made.stdout.strip())


def up(machine: Machine) -> dict[str, str]:
    targets = httpx.get(machine.url("9090", "/api/v1/targets")).json()["data"]["activeTargets"]
    return {target["labels"]["job"]: target["health"] for target in targets}


def asked(machine: Machine, query: str) -> float:
    """The sum of what Prometheus has stored."""
    answer = httpx.get(machine.url("9090", "/api/v1/query"), params={"query": query}).json()
    return sum(float(one["value"][1]) for one in answer["data"]["result"])


def test_prometheus_finds_the_api_and_the_worker_up(machine: Machine) -> None:
    wait_until(lambda: up(machine) == {"sonde-api": "up", "sonde-worker": "up"}, 20)
    wait_until(lambda: asked(machine, "sonde_ready") == 1, 10)
    wait_until(lambda: asked(machine, "sonde_workers") == 1, 20)


def test_nobody_gets_in_without_a_key(machine: Machine) -> None:
    assert httpx.get(machine.url("8000", "/v1/models")).status_code == 401


def test_a_job_of_the_api_is_run_by_the_worker_and_counted(machine: Machine) -> None:
    key = {"authorization": f"Bearer {(machine.directory / 'key').read_text()}"}
    with httpx.Client(base_url=machine.url("8000", "/v1"), headers=key, timeout=30) as client:
        rows = b'{"text": "a", "label": "x"}\n' * 20
        uploaded = client.post("/files", files={"file": ("rows.jsonl", rows)}, data={"purpose": "fine-tune"}).json()
        job = client.post(
            "/fine_tuning/jobs", json={"model": "all-MiniLM-L6-v2", "training_file": uploaded["id"]}
        ).json()
        path = f"/fine_tuning/jobs/{job['id']}"
        wait_until(lambda: client.get(path).json()["status"] == "failed", 120)
        assert client.get(path).json()["error"]["param"] == "training_file"
    wait_until(lambda: asked(machine, 'sonde_attempts_total{outcome="failed"}') == 1, 20)
    wait_until(lambda: asked(machine, 'sonde_jobs{status="failed"}') == 1, 20)
