"""What is shipped for containers: linted, valid, and true to the program that it starts."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
import yaml
from fastapi.testclient import TestClient

from service.cli import parser
from service.config import PREFIX, Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
PROMETHEUS = ROOT / "deploy/prometheus.yml"
COMPOSE_FILES = (ROOT / "docker-compose.yml", ROOT / "deploy/docker-compose.cuda.yml")
SHIPPED = (DOCKERFILE, PROMETHEUS, *COMPOSE_FILES, ROOT / ".dockerignore", ROOT / "deploy/README.md")
# What the images of others, and the libraries below us, read.
NOT_OURS = {"PGPASSWORD", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


SERVICES: dict[str, dict[str, Any]] = read(COMPOSE_FILES[0])["services"]
SONDES = {name: service for name, service in SERVICES.items() if service["command"][0] in {"serve", "worker", "up"}}


def settings_of(service: dict[str, Any]) -> Settings:
    """The settings that a service's command and environment give, as `sonde` reads them."""
    parsed = vars(parser().parse_args(service["command"]))
    environment = {name: str(value) for name, value in service["environment"].items()}
    with mock.patch.dict(os.environ, environment, clear=True):
        return Settings.read({name: parsed.get(name) for name in Settings.model_fields})


def instructions(word: str) -> list[str]:
    """What follows a word in the Dockerfile, lines that go on joined."""
    joined = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", "")
    return [line.removeprefix(word).strip() for line in joined.splitlines() if line.startswith(f"{word} ")]


def compose_schema() -> jsonschema_rs.Validator:
    text = (
        importlib.resources.files("check_jsonschema")
        .joinpath("builtin_schemas/vendor/compose-spec.json")
        .read_text(encoding="utf-8")
    )
    return jsonschema_rs.validator_for(json.loads(text))


def test_the_dockerfile_is_linted() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    linted = subprocess.run([hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_compose_files_are_valid(path: Path) -> None:
    assert [str(error) for error in compose_schema().iter_errors(read(path))] == []


def test_the_schema_refuses_what_is_not_compose() -> None:
    assert not compose_schema().is_valid({"services": {"api": {"comand": ["serve"]}}})


def test_prometheus_takes_its_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    checked = subprocess.run(
        [promtool, "check", "config", str(PROMETHEUS)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_image_runs_as_nobody_in_particular_and_leaves_the_build_behind() -> None:
    assert len(instructions("FROM")) == 2
    user = instructions("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "numbers, so that Kubernetes can see that it is not root"
    assert [line for line in instructions("COPY") if "--from=build" in line] == ["--from=build /opt/sonde /opt/sonde"]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    let_in = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    sources = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert set(sources) == let_in
    assert [source for source in sources if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_no_package_index_is_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [url for url in re.findall(r"https?://([^/:\s'\"]+)", text) if url != "127.0.0.1"] == []
    assert not re.search(r"(pypi|pythonhosted|pytorch)\.org", text)


@pytest.mark.parametrize("name", SONDES)
def test_commands_and_variables_are_those_of_the_program(name: str) -> None:
    service = SONDES[name]
    variables = set(service["environment"]) - NOT_OURS
    assert variables <= {PREFIX + field.upper() for field in Settings.model_fields}
    settings = settings_of(service)
    assert str(settings.home) in [volume.split(":")[1] for volume in service["volumes"]]
    assert urlsplit(settings.database_url).hostname in SERVICES
    assert urlsplit(settings.database_url).password is None, "it would be in every listing of processes and variables"


def test_the_image_starts_with_a_command_of_the_program() -> None:
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["sonde"]
    assert parser().parse_args(json.loads(instructions("CMD")[0])).host == "0.0.0.0"


def test_other_variables_are_those_that_postgres_and_libpq_know() -> None:
    assert {
        name for service in SERVICES.values() for name in service.get("environment", {}) if not name.startswith(PREFIX)
    } <= NOT_OURS


def test_prometheus_asks_at_the_ports_that_are_listened_on() -> None:
    targets = {
        target
        for job in read(PROMETHEUS)["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    assert targets == {f"{name}:{settings_of(service).metrics_port}" for name, service in SONDES.items()}


def test_published_and_exposed_ports_are_listened_on() -> None:
    api = settings_of(SERVICES["api"])
    assert SERVICES["api"]["ports"] == [f"127.0.0.1:${{API_PORT:-8000}}:{api.port}"]
    listened = {api.port, *(settings_of(service).metrics_port for service in SONDES.values())}
    assert {int(port) for port in instructions("EXPOSE")[0].split()} == listened


def test_only_loopback_is_published() -> None:
    assert [
        port for service in SERVICES.values() for port in service.get("ports", []) if not port.startswith("127.0.0.1:")
    ] == []


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_the_health_checks_ask_routes_that_are_there(client: TestClient) -> None:
    asked = {
        name: urlsplit(re.findall(r"http://[^'\"]+", str(service["healthcheck"]["test"]))[0])
        for name, service in SONDES.items()
    }
    assert client.get(asked["api"].path).status_code == 200
    assert asked["api"].port == settings_of(SERVICES["api"]).port
    assert (asked["worker"].port, asked["worker"].path) == (settings_of(SERVICES["worker"]).metrics_port, "/metrics")


def test_there_is_time_to_end_before_the_kill() -> None:
    patience = {name: float(service["stop_grace_period"].removesuffix("s")) for name, service in SONDES.items()}
    settings = Settings.read({})
    assert patience["api"] > settings.shutdown_s + 2
    assert patience["worker"] > settings.job_stop_s + settings.job_lease_s
