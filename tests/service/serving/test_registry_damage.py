"""A registry that is damaged, lost or older than it was: what serves goes on, and operators see why."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.registry.registry import Registry
from service.errors import Unservable
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.artifacts import NAME
from tests.support.trained_models import train

BASE = FakeModel("fake")
BY: dict[str, Any] = {"by": "test", "why": ""}


class Service:
    """An application over one fake encoder. Version 2 of a trained model is in service at generation 2."""

    def __init__(self, client: TestClient, where: Path) -> None:
        self.client = client
        self.where = where
        self.manager: ModelManager = client.app.state.manager  # type: ignore[attr-defined]
        self.metrics: Metrics = client.app.state.metrics  # type: ignore[attr-defined]
        self.registry: Registry = self.manager.registry
        self.root = self.manager.registry._root
        self.directory = self.root / "ft--fake--team--intents"
        self.now = 1000.0
        for clocked in (self.manager.watcher, self.manager.watcher._failures):
            clocked._clock = lambda: self.now
        for _ in range(2):
            self.registry.promote(NAME, self.train(), **BY)
            self.sync()
        self.registry.set_alias("prod", NAME)
        self.sync()

    def train(self) -> int:
        return train(self.registry, self.where, BASE)

    def sync(self, times: int = 1, each_s: float = 1.0) -> None:
        """Let the watcher look once a second."""
        for _ in range(times):
            self.now += each_s
            self.manager.watcher.sync()

    def label(self, asked: str = NAME) -> str:
        return self.manager.find(asked).label

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    @property
    def problems(self) -> float | None:
        return self.metric("sonde_registry_problems")

    @property
    def generation(self) -> float | None:
        return self.metric("sonde_model_generation", model=NAME)

    def notes(self) -> list[str]:
        """What /v1/models notes about the trained model."""
        listed = self.client.get("/v1/models").json()["data"]
        return [note for model in listed if model["id"] == NAME for note in model["notes"]]


@pytest.fixture
def service(make_app: MakeApp, tmp_path: Path) -> Iterator[Service]:
    with TestClient(make_app(BASE)) as client:
        yield Service(client, tmp_path)


def older_pointer(service: Service) -> None:
    record = json.loads((service.directory / "current.json").read_bytes())
    (service.directory / "current.json").write_text(json.dumps({**record, "version": 1, "generation": 1}))


def older_directory(service: Service) -> None:
    """Pointer and ledger agree, as in a backup of the whole directory."""
    older_pointer(service)
    ledger = service.directory / "ledger.jsonl"
    ledger.write_text("".join(line for line in ledger.read_text().splitlines(True) if '"generation": 2' not in line))


def other_version(service: Service) -> None:
    """The same generation with another version, as two histories that went on from one backup have it."""
    for file in (service.directory / "current.json", service.directory / "ledger.jsonl"):
        content = file.read_text()
        file.write_text(content.replace('"version": 2, "by": "test"', '"version": 1, "by": "test"'))


DAMAGES: dict[str, Callable[[Service], object]] = {
    "pointer empty": lambda service: (service.directory / "current.json").write_bytes(b""),
    "pointer gone": lambda service: (service.directory / "current.json").unlink(),
    "pointer not JSON": lambda service: (service.directory / "current.json").write_bytes(b"{"),
    "pointer and ledger gone": lambda service: [
        (service.directory / name).unlink() for name in ("current.json", "ledger.jsonl")
    ],
    "pointer a directory": lambda service: [
        (service.directory / "current.json").unlink(),
        (service.directory / "current.json").mkdir(),
    ],
    "pointer older": older_pointer,
    "directory older": older_directory,
    "another version": other_version,
    "directory renamed": lambda service: service.directory.rename(service.root / "away"),
    "root renamed": lambda service: service.root.rename(service.root.with_name("away")),
    "root empty": lambda service: [service.root.rename(service.root.with_name("away")), service.root.mkdir()],
    "root a file": lambda service: [service.root.rename(service.root.with_name("away")), service.root.touch()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_serves_goes_on_and_operators_see_why(
    service: Service, damage: Callable[[Service], object], caplog: pytest.LogCaptureFixture
) -> None:
    assert (service.label(), service.problems, service.notes()) == (f"{NAME}:v2", 0, [])
    shutil.copytree(service.root, service.where / "sound")
    damage(service)
    with caplog.at_level(logging.INFO):
        service.sync(100)
    for asked in (NAME, f"{NAME}:v2", "prod"):
        answer = service.client.post("/v1/classify", json={"model": asked, "input": "hello"})
        assert (answer.status_code, answer.headers["x-sonde-model"]) == (200, f"{NAME}:v2"), asked
    assert service.generation == 2
    assert service.problems in (1, 2), "the second are the aliases"
    failures = service.metric("sonde_reload_failures_total", model=NAME)
    assert failures is not None
    assert 2 <= failures <= 5, "every 30 s"
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert sum(NAME in message for message in logged) == 1, logged
    assert [note for note in service.notes() if "this version goes on serving" in note]
    assert service.client.get("/health").status_code == service.client.get("/health/live").status_code == 200

    caplog.clear()
    for path in (service.root, service.root.with_name("away")):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    shutil.move(service.where / "sound", service.root)
    with caplog.at_level(logging.INFO):
        service.sync(2, each_s=30)
    assert (service.label(), service.label("prod"), service.problems) == (f"{NAME}:v2", f"{NAME}:v2", 0)
    assert "the registry is followed again" in caplog.text


ONLY_BY_HAND = {"pointer a directory", "directory renamed", "root renamed", "root empty", "root a file"}


@pytest.mark.parametrize("damage", sorted(set(DAMAGES) - ONLY_BY_HAND))
def test_the_next_promotion_over_http_repairs_it(service: Service, damage: str) -> None:
    DAMAGES[damage](service)
    service.sync()
    version = service.train()
    answer = service.client.post(f"/v1/models/{NAME}/promote", json={"version": version})
    assert answer.status_code == 200, answer.text
    assert answer.json()["generation"] == 3
    service.sync()
    assert (service.label(), service.generation, service.problems, service.notes()) == (f"{NAME}:v3", 3, 0, [])


def test_the_version_in_service_can_be_promoted_to_repair_it(service: Service) -> None:
    older_directory(service)
    service.sync()
    assert service.client.post(f"/v1/models/{NAME}/promote", json={"version": 1}).json()["generation"] == 3
    service.sync()
    assert (service.label(), service.generation, service.problems) == (f"{NAME}:v1", 3, 0)


def test_routes_name_the_damage(service: Service) -> None:
    (service.directory / "current.json").write_bytes(b"")
    for path in (f"/v1/models/{NAME}/rollback", f"/v1/models/{NAME}/withdraw"):
        answer = service.client.post(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "registry_damaged")
        assert "current.json is empty; the ledger has version 2 in service, generation 2" in answer.text
        assert str(service.where) not in answer.text
    assert service.client.get(f"/v1/models/{NAME}/versions").status_code == 500
    assert service.client.get(f"/v1/models/{NAME}/ledger").json()["data"][-1]["generation"] == 2


def test_what_was_withdrawn_and_deleted_is_no_damage(service: Service) -> None:
    service.registry.withdraw(NAME, **BY)
    service.registry.remove_alias("prod")
    service.registry.delete_all(NAME)
    service.sync()
    assert (service.manager.watcher.find(NAME), service.problems, service.generation) == (None, 0, None)


# --- from the start
# ---------------------------------------------------------------------------------------------------------------


def restart(service: Service, make_app: MakeApp) -> ModelManager:
    """The registry as a new process finds it."""
    manager: ModelManager = make_app(BASE).state.manager
    manager.watcher.sync()
    return manager


@pytest.mark.parametrize("damage", ["pointer empty", "pointer gone", "pointer not JSON", "pointer older"])
def test_a_service_starts_without_a_model_whose_pointer_is_damaged(
    service: Service, make_app: MakeApp, damage: str
) -> None:
    DAMAGES[damage](service)
    manager = restart(service, make_app)
    assert manager.find("fake").label == "fake:0"
    with pytest.raises(Unservable, match=rf"{NAME} cannot be served: .*current\.json .*promote a version"):
        manager.find(NAME)
    assert manager._metrics.registry.get_sample_value("sonde_registry_problems") == 1
    service.registry.promote(NAME, 2, **BY)
    manager.watcher.sync()
    assert manager.find(NAME).label == f"{NAME}:v2"


# --- aliases
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", None])
def test_aliases_that_are_damaged_or_gone_go_on(service: Service, content: bytes | None) -> None:
    path = service.root / "aliases.json"
    path.unlink() if content is None else path.write_bytes(content)
    service.sync(100)
    assert (service.label("prod"), service.problems) == (f"{NAME}:v2", 1)
    failures = service.metric("sonde_reload_failures_total", model="registry")
    assert failures is not None
    assert 2 <= failures <= 5
    with pytest.raises(Unservable, match=r"other cannot be served: .*aliases\.json"):
        service.manager.find("other")
    answer = service.client.put("/v1/aliases/other", json={"target": f"{NAME}:v2"})
    assert answer.status_code == 200, answer.text
    service.sync()
    assert (service.label("prod"), service.label("other"), service.problems) == (f"{NAME}:v2", f"{NAME}:v2", 0)


def test_a_service_starts_without_aliases_that_are_damaged(service: Service, make_app: MakeApp) -> None:
    (service.root / "aliases.json").write_bytes(b"")
    manager = restart(service, make_app)
    assert manager.find(NAME).label == f"{NAME}:v2"
    with pytest.raises(Unservable, match=r"prod cannot be served: models/aliases\.json is empty"):
        manager.find("prod")


def test_versions_that_callers_named_go_on_without_a_registry(service: Service) -> None:
    answer = service.client.post("/v1/classify", json={"model": f"{NAME}:v1", "input": "hello"})
    assert answer.status_code == 200
    service.root.rename(service.root.with_name("away"))
    service.sync(3)
    answer = service.client.post("/v1/classify", json={"model": f"{NAME}:v1", "input": "hello"})
    assert (answer.status_code, answer.headers["x-sonde-model"]) == (200, f"{NAME}:v1")
