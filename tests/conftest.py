"""Fixtures of all tests: databases, applications over fake models, and a real server process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.text.base import TextModel
from service.api.app import create_app
from service.auth import Keyring
from service.config import Settings
from service.jobs.database import Database
from service.metrics import Metrics
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp, open_manager
from tests.support.databases import Postgres, postgres
from tests.support.fork_server import Forking
from tests.support.server import Served, serving
from tests.support.size import Size

# `make test` draws the same examples in every run; `make test-properties` draws anew. A busy machine is no finding.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("free", max_examples=1000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    campaign = parser.getgroup("campaign")
    campaign.addoption("--full", action="store_true", help="run the campaign's checks with all their numbers")
    campaign.addoption("--seconds", type=float, help="length of the soak, the loads and the fuzzing")
    campaign.addoption("--minutes", help="file to which the soak adds a line each minute")

    parser.addoption(
        "--screenshots", type=Path, help="directory for the pictures of the console, as the docs show them"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files that start processes first: they take longest, and two workers should end with a short file."""
    real = {item.path for item in items if item.get_closest_marker("real")}
    items.sort(key=lambda item: item.path not in real)


def pytest_configure() -> None:
    """Collect no garbage while the tests are imported."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what the imports made out of collections, which took a fifth of the tests' processor time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def forking() -> Iterator[Forking]:
    """Programs of ours start as forks of one that has imported PyTorch; see `executed_programs`."""
    with closing(Forking()) as forking:
        forking.install()
        yield forking


@pytest.fixture(scope="module")
def executed_programs(forking: Forking) -> Iterator[None]:
    """For files of tests of how programs start and end: they are executed, as in production."""
    with forking.suspended():
        yield


@pytest.fixture
def executed_program(forking: Forking) -> Iterator[None]:
    """For a test of how a program starts or ends: it is executed, as in production."""
    with forking.suspended():
        yield


@pytest.fixture
def size(pytestconfig: pytest.Config) -> Size:
    return Size(full=pytestconfig.getoption("--full"))


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = Database(
        request.getfixturevalue("postgresql").new_database() if request.param == "postgresql" else "", tmp_path
    )
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[MakeApp]:
    """A function that builds applications over fakes: `make_app(FakeModel(…), max_inputs=3)`."""
    with ExitStack() as stack:

        def make(*models: TextModel, **settings: object) -> FastAPI:
            chosen = Settings.read({"home": tmp_path, "host": "testserver", **settings})  # as TestClient calls it
            metrics = Metrics()
            manager = open_manager(chosen, metrics, *models)
            stack.callback(manager.close)
            return create_app(chosen, manager, Keyring(chosen.keys_file), metrics)

        yield make


@pytest.fixture
def client(make_app: MakeApp) -> Iterator[TestClient]:
    """A client of an application with one fake encoder called `fake`."""
    with TestClient(make_app()) as client:
        yield client


@pytest.fixture(scope="session")
def openapi_document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The OpenAPI document of an application over a fake encoder. Writing it takes longer than most tests."""
    settings, metrics = Settings.read({"home": tmp_path_factory.mktemp("document")}), Metrics()
    with closing(open_manager(settings, metrics, FakeModel("all-MiniLM-L6-v2"))) as manager:
        return create_app(settings, manager, Keyring(settings.keys_file), metrics).openapi()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real server with the real MiniLM, shared by all tests that change nothing about it."""
    with serving(tmp_path_factory.mktemp("server"), "--cache-mb", "16") as served:
        yield served
