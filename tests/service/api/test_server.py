"""What the server believes of its callers' addresses, and what it announces."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from fastapi import FastAPI

from service.api.server import Server
from service.config import Settings
from service.metrics import Metrics
from tests.support.app import open_manager


def client_address(home: Path, peer: str, forwarded: str, **flags: object) -> str:
    """The address that the application sees."""
    settings = Settings.read({"home": home, **flags})
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    server = Server(FastAPI(), settings, open_manager(settings, Metrics()), announce=lambda url, metadata: None)
    server.config.app = app
    server.config.load()
    scope = {
        "type": "http",
        "client": (peer, 1),
        "headers": [(b"x-forwarded-for", forwarded.encode())],
        "scheme": "http",
    }
    asyncio.run(server.config.loaded_app(scope, None, None))
    return seen[0]


@pytest.mark.parametrize(
    ("peer", "forwarded", "networks", "expected"),
    [
        ("127.0.0.1", "1.2.3.4", [], "127.0.0.1"),
        ("10.1.1.1", "1.2.3.4", [], "10.1.1.1"),
        ("10.1.1.1", "1.2.3.4", ["10.0.0.0/8"], "1.2.3.4"),
        ("127.0.0.1", "1.2.3.4", ["10.0.0.0/8"], "127.0.0.1"),
        ("10.1.1.1", "6.6.6.6, 1.2.3.4", ["10.0.0.0/8"], "1.2.3.4"),
        ("10.1.1.1", "6.6.6.6, 1.2.3.4, 10.2.2.2", ["10.0.0.0/8"], "1.2.3.4"),
    ],
)
def test_only_trusted_proxies_name_their_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: str, forwarded: str, networks: list[str], expected: str
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own variable
    assert client_address(tmp_path, peer, forwarded, trusted_proxies=networks) == expected


@pytest.mark.parametrize("draining", [False, True])
def test_a_server_that_stops_while_its_models_open_announces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, draining: bool
) -> None:
    monkeypatch.setattr("service.api.server.gc", Mock())  # of this process
    settings = Settings.read({"home": tmp_path})
    manager, announced = open_manager(settings, Metrics()), list[str]()
    opened = Future[None]()
    opened.set_result(None)
    monkeypatch.setattr(manager, "start_opening", lambda: opened)
    manager.draining = draining
    server = Server(FastAPI(), settings, manager, announce=lambda url, metadata: announced.append(url))
    server.servers = []  # none listens
    with closing(asyncio.new_event_loop()) as loop:
        server._open(loop)
    assert len(announced) == (not draining)
    manager.close()
