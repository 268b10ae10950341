"""Requests whose deadline passes in the queue cost no forward pass."""

from __future__ import annotations

import asyncio

import pytest

from tests.campaign.conftest import Figure
from tests.support.app import MakeApp
from tests.support.call import HELD_S, Call, held, texts
from tests.support.size import Size

pytestmark = [pytest.mark.slow]


def test_requests_that_expire_are_not_computed(make_app: MakeApp, size: Size, figure: Figure) -> None:
    count = size.of(200, 1000)

    async def play() -> None:
        app, model = held(make_app)
        first = Call(app, {"model": "fake", "input": "hello"})
        assert await asyncio.to_thread(model.entered.wait, HELD_S)
        late = [
            Call(app, {"model": "fake", "input": f"w{number}"}, {"X-Request-Timeout-Ms": "50"})
            for number in range(count)
        ]
        assert [await call.status() for call in late] == [504] * count
        model.gate.set()
        assert await first.status() == 200
        figure(f"{count} expired, {sum(texts(model)) - 1} of them computed")
        assert texts(model) == [1]

    asyncio.run(play())
