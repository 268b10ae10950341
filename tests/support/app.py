"""Applications over fake models, without a server process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.text.base import TextModel
from service.api.app import create_app
from service.auth import Keyring
from service.config import Settings
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from service.serving.text_model import ServedText
from tests.fakes.model import FakeModel

MakeApp = Callable[..., FastAPI]


def open_manager(settings: Settings, metrics: Metrics, *models: TextModel) -> ModelManager:
    """A model manager that serves fakes."""
    manager = ModelManager(settings, metrics)
    for model in models or (FakeModel(),):
        manager.add(model)
    manager.opened = True
    return manager


@contextmanager
def served(settings: Settings) -> Iterator[tuple[TestClient, ModelManager]]:
    """A client of an application that serves the models of the settings, and its model manager."""
    metrics = Metrics()
    manager = ModelManager(settings, metrics)
    manager.open()
    with TestClient(create_app(settings, manager, Keyring(settings.keys_file), metrics)) as client:
        yield client, manager
    manager.close()


def text_model(manager: ModelManager, name: str) -> ServedText:
    """The text model in service under a name."""
    found = manager.find(name)
    assert isinstance(found, ServedText)
    return found
