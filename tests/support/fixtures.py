"""Fixtures of all tests: databases, applications over fake models, and a real server process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest
from fastapi.testclient import TestClient

from models.images import efficientnet_lite
from models.text.packed import torchscript
from service.api.app import create_app
from service.auth import Keyring
from service.config import Settings
from service.jobs.database import Database
from service.metrics import Metrics
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp, making_apps, open_manager
from tests.support.databases import Postgres, postgres
from tests.support.server import Served, serving
from tests.support.size import Size


@pytest.fixture(scope="session", autouse=True)
def event_loop_thread() -> Iterator[None]:
    """A loop in a thread for the requests of clients that are not entered: to start one takes longer than a request."""
    with anyio.from_thread.start_blocking_portal() as portal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestClient, "portal", portal)
        yield


@pytest.fixture(scope="module")
def layers_in_python() -> Iterator[None]:
    """For tests of something else than layers: to compile those of a tiny model takes longer than to load it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (torchscript, efficientnet_lite):
            patch.setattr(module, "script", lambda code: code)
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
    with making_apps(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeApp]:
    """As `make_app`, for an application that no test of a file changes: to build it takes longer than a request."""
    with making_apps(tmp_path_factory.mktemp("shared")) as make:
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
