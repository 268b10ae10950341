"""Callers that hang up or run out of time, seen from the ASGI side."""

from __future__ import annotations

import asyncio

from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.call import HELD_S, Call, held, texts, wait_for_items


def test_a_caller_that_hangs_up_in_the_queue_is_never_computed(make_app: MakeApp) -> None:
    async def play() -> None:
        app, model = held(make_app)
        first = Call(app, {"model": "fake", "input": "hello"})
        assert await asyncio.to_thread(model.entered.wait, HELD_S)
        gone = Call(app, {"model": "fake", "input": ["w1", "w2", "w3"]})
        await wait_for_items(app, 4)
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
        await wait_for_items(app, 2)
        refused = Call(app, {"model": "fake", "input": "c"})
        assert await refused.status() == 429
        headers = dict(refused.sent[0]["headers"])
        assert int(headers[b"retry-after"]) >= 1
        model.gate.set()
        assert await inside.status() == 200
        assert await Call(app, {"model": "fake", "input": "c"}).status() == 200

    asyncio.run(play())
