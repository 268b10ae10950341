"""One POST to an application, driven message by message, so that a test can hang up in the middle."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI
from starlette.types import Message

from tests.fakes.model import FakeModel
from tests.support.app import MakeApp

HELD_S = 5.0


class Call:
    """A POST to `/v1/embeddings` that waits for its answer in a task."""

    def __init__(self, app: FastAPI, body: Any, headers: dict[str, str] | None = None) -> None:
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request", "body": json.dumps(body).encode(), "more_body": False})
        self.sent: list[Message] = []
        given = {"content-type": "application/json", **(headers or {})}
        self.task = asyncio.ensure_future(app(embeddings_scope(given), self._incoming.get, self._send))

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def hang_up(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def status(self) -> int:
        await asyncio.wait_for(self.task, HELD_S)
        return int(self.sent[0]["status"])


def held(make_app: MakeApp) -> tuple[FastAPI, FakeModel]:
    """An application whose model waits for its gate, warmed up before."""
    model = FakeModel("fake")
    app = make_app(model)
    model.gate.clear()
    model.entered.clear()
    model.batches.clear()
    return app, model


def texts(model: FakeModel) -> list[int]:
    return [len(batch) for batch in model.batches]


async def wait_for_items(app: FastAPI, count: int) -> None:
    """Wait until the queue has `count` items."""
    async with asyncio.timeout(HELD_S):
        while app.state.manager.find("fake")._admission.items < count:
            await asyncio.sleep(0.001)


def embeddings_scope(headers: dict[str, str]) -> dict[str, Any]:
    """The ASGI scope of a request for embeddings."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/embeddings",
        "raw_path": b"/v1/embeddings",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 5000),
        "server": ("127.0.0.1", 8000),
    }
