"""Fixtures shared by the tests: an application over a fake model, and a real server process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import hypothesis
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.auth import Keyring
from service.config import Settings
from service.jobs.database import Database
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from service.serving.text_model import ServedText as TextModel
from tests.fakes.model import FakeModel
from tests.support.databases import Postgres, postgres

MakeApp = Callable[..., FastAPI]

# `make test` draws the same examples in every run; `make test-properties` draws anew.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.register_profile("free", max_examples=1000, deadline=None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes come first: they take longest, and with two at work the last file should be a short
    one.
    """
    real = {item.path for item in items if item.get_closest_marker("real")}
    items.sort(key=lambda item: item.path not in real)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = Database(
        request.getfixturevalue("postgresql").new_database() if request.param == "postgresql" else "", tmp_path
    )
    made.migrate()
    yield made
    made.close()


def open_manager(settings: Settings, metrics: Metrics, *models: FakeModel) -> ModelManager:
    """A model manager of fakes."""
    manager = ModelManager(settings, metrics)
    for model in models or (FakeModel(),):
        manager.add(model)
    manager.opened = True
    return manager


def text_model(manager: ModelManager, name: str) -> TextModel:
    """The model of texts that serves under a name."""
    found = manager.find(name)
    assert isinstance(found, TextModel)
    return found


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[MakeApp]:
    """Builds applications over fakes: `make_app(FakeModel(…), max_inputs=3)`."""
    with ExitStack() as stack:

        def make(*models: FakeModel, **settings: object) -> FastAPI:
            chosen = Settings.read({"home": tmp_path, **settings})
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


class Served:
    """A `sonde serve` process and where it listens."""

    def __init__(self, process: subprocess.Popen[str], url: str, home: Path) -> None:
        self.process = process
        self.url = url
        self.home = home

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def serving(home: Path, *flags: str, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """Start the real command on a free port and wait until it says that it is ready."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--home", str(home), *flags]
    log = (home / "server.log").open("w")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(environment or {})}
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "ready on " not in line:
            process.kill()
            pytest.fail(f"the server said {line!r}; its log: {(home / 'server.log').read_text()[-3000:]}")
        yield Served(process, line.split("ready on ")[1].split(" ")[0], home)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
        log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real server with the real MiniLM, shared by all tests that change nothing about it."""
    with serving(tmp_path_factory.mktemp("server"), "--cache-mb", "16") as served:
        yield served


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Poll until something holds, or fail."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.005)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def metric(base_url: str, name: str) -> float:
    """The sum of a metric's samples at a server."""
    lines = httpx.get(f"{base_url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)
