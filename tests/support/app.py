"""Applications over fake models, without a server process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.text.model import TextModel
from service.api.app import create_app
from service.auth import Keyring
from service.config import Settings
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from service.serving.text_model import ServedText
from tests.fakes.model import FakeModel
from tests.support.server import wait_until

MakeApp = Callable[..., FastAPI]


def open_manager(settings: Settings, metrics: Metrics, *models: TextModel) -> ModelManager:
    """A model manager that serves fakes."""
    manager = ModelManager(settings, metrics)
    for model in models or (FakeModel(),):
        manager.add(model)
    manager.opened = True
    return manager


@contextmanager
def making_apps(home: Path) -> Iterator[MakeApp]:
    """A function that builds applications over fakes, whose models are closed at the end."""
    with ExitStack() as stack:

        def make(*models: TextModel, **settings: object) -> FastAPI:
            chosen = Settings.read({"home": home, "host": "testserver", **settings})  # as TestClient calls it
            metrics = Metrics()
            manager = open_manager(chosen, metrics, *models)
            stack.callback(manager.close)
            return create_app(chosen, manager, Keyring(chosen.keys_file), metrics)

        yield make


@contextmanager
def served(settings: Settings) -> Iterator[tuple[TestClient, ModelManager]]:
    """A client of an application that serves the models of the settings, and its model manager."""
    with opened(settings) as (app, manager), TestClient(app) as client:
        yield client, manager


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[FastAPI, ModelManager]]:
    """An application that serves the models of the settings, and its model manager."""
    metrics = Metrics()
    manager = ModelManager(settings, metrics)
    manager.open()
    yield create_app(settings, manager, Keyring(settings.keys_file), metrics), manager
    manager.close()


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of a server of this process that serves an application, for clients that need a real one."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), 30)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def text_model(manager: ModelManager, name: str) -> ServedText:
    """The text model in service under a name."""
    found = manager.find(name)
    assert isinstance(found, ServedText)
    return found
