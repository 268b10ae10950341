"""Callers that hang up or run out of time, seen from the ASGI side."""

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
    """One POST, driven message by message, so that a test can hang up in the middle."""

    def __init__(self, app: FastAPI, body: Any, headers: dict[str, str] | None = None) -> None:
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request", "body": json.dumps(body).encode(), "more_body": False})
        self.sent: list[Message] = []
        given = {"content-type": "application/json", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/embeddings",
            "raw_path": b"/v1/embeddings",
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 5000),
            "server": ("127.0.0.1", 8000),
        }
        self.task = asyncio.ensure_future(app(scope, self._incoming.get, self._send))

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


async def _wait_for_items(app: FastAPI, count: int) -> None:
    """Wait until the queue has `count` items."""
    async with asyncio.timeout(HELD_S):
        while app.state.manager.find("fake")._admission.items < count:
            await asyncio.sleep(0.001)


def test_a_caller_that_hangs_up_in_the_queue_is_never_computed(make_app: MakeApp) -> None:
    async def play() -> None:
        app, model = held(make_app)
        first = Call(app, {"model": "fake", "input": "hello"})
        assert await asyncio.to_thread(model.entered.wait, HELD_S)
        gone = Call(app, {"model": "fake", "input": ["w1", "w2", "w3"]})
        await _wait_for_items(app, 4)
        gone.hang_up()
        assert await gone.status() == 499
        model.gate.set()
        assert await first.status() == 200
        assert texts(model) == [1]
        assert app.state.manager.find("fake")._admission.items == 0, "its place is free again"
        assert app.state.metrics.registry.get_sample_value("sonde_client_gone_total") == 1

    asyncio.run(play())


def test_a_deadline_that_passes_in_the_queue_costs_no_forward_pass(make_app: MakeApp) -> None:
    async def play() -> None:
        app, model = held(make_app)
        first = Call(app, {"model": "fake", "input": "hello"})
        assert await asyncio.to_thread(model.entered.wait, HELD_S)
        late = Call(app, {"model": "fake", "input": "w1"}, {"X-Request-Timeout-Ms": "20"})
        assert await late.status() == 504
        model.gate.set()
        assert await first.status() == 200
        assert texts(model) == [1]
        assert app.state.metrics.registry.get_sample_value("sonde_deadline_missed_total") == 1

    asyncio.run(play())


def test_the_default_deadline_holds_for_those_who_set_none(make_app: MakeApp) -> None:
    async def play() -> None:
        model = FakeModel("fake")
        app = make_app(model, default_timeout_s=0.02)
        model.gate.clear()
        assert await Call(app, {"model": "fake", "input": "hello"}).status() == 504
        model.gate.set()

    asyncio.run(play())


def test_a_full_house_refuses_before_any_work(make_app: MakeApp) -> None:
    async def play() -> None:
        model = FakeModel("fake")
        app = make_app(model, max_queued_items=2)
        model.gate.clear()
        inside = Call(app, {"model": "fake", "input": ["a", "b"]})
        await _wait_for_items(app, 2)
        refused = Call(app, {"model": "fake", "input": "c"})
        assert await refused.status() == 429
        headers = dict(refused.sent[0]["headers"])
        assert int(headers[b"retry-after"]) >= 1
        model.gate.set()
        assert await inside.status() == 200
        assert await Call(app, {"model": "fake", "input": "c"}).status() == 200

    asyncio.run(play())
