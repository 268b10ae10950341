"""A text on which the model fails, among 32 that wait for one batch, fails alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from models.text.tokenization import Tokens
from tests.campaign.conftest import Figure
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.call import HELD_S, Call, wait_for_items
from tests.support.size import Size

pytestmark = [pytest.mark.slow]

BATCH = 32
POISON = "pizza"


def test_one_text_in_32_fails_alone(make_app: MakeApp, size: Size, figure: Figure) -> None:
    rounds = size.of(10, 200)
    model = FakeModel("fake")
    poison = model.text.encode([POISON])[0].ids[1]

    def fail(batch: Sequence[Tokens]) -> None:
        if any(poison in tokens.ids for tokens in batch):
            raise ValueError("a fault of the library")

    model._fault = fail
    app = make_app(model, cache_mb=0)
    dice = random.Random(7)

    async def play(number: int) -> list[int]:
        model.gate.clear()
        model.entered.clear()
        first = Call(app, {"model": "fake", "input": "hello"})
        assert await asyncio.to_thread(model.entered.wait, HELD_S)
        bad = dice.randrange(BATCH)
        words = [POISON if at == bad else f"w{(number * BATCH + at) % 1000}" for at in range(BATCH)]
        calls = [Call(app, {"model": "fake", "input": word}) for word in words]
        await wait_for_items(app, BATCH + 1)
        model.batches.clear()
        model.gate.set()
        assert await first.status() == 200
        statuses = [await call.status() for call in calls]
        assert max(len(batch) for batch in model.batches) == BATCH, "they shared a batch"
        assert statuses.pop(bad) == 500
        return statuses

    others = [status for number in range(rounds) for status in asyncio.run(play(number))]
    figure(f"{rounds} batches, {others.count(200)} of {len(others)} others answered")
    assert others == [200] * len(others)
