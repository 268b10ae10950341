"""What the server believes of its callers' addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

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
