"""A device that runs out of memory at every tenth batch costs at most one request in a hundred."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence

import httpx
import pytest

from models.errors import ModelOutOfMemory
from models.text.tokenization import Tokens
from tests.campaign.conftest import Figure
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.size import Size

pytestmark = [pytest.mark.slow]

CALLERS = 16
TEXTS = 4


def test_every_tenth_batch_out_of_memory(make_app: MakeApp, size: Size, figure: Figure) -> None:
    requests = size.of(400, 10_000)
    batches = itertools.count(1)

    def run_out(batch: Sequence[Tokens]) -> None:
        if len(batch) > 1 and next(batches) % 10 == 0:
            raise ModelOutOfMemory("no memory is left on the device")

    app = make_app(FakeModel("fake", fault=run_out), cache_mb=0)
    statuses: Counter[int] = Counter()

    async def caller(http: httpx.AsyncClient, numbers: range) -> None:
        for number in numbers:
            words = [f"w{(number * TEXTS + at) % 1000} w{number % 997}" for at in range(TEXTS)]
            answer = await http.post("/v1/embeddings", json={"model": "fake", "input": words})
            statuses[answer.status_code] += 1

    async def play() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            await asyncio.gather(*(caller(http, range(at, requests, CALLERS)) for at in range(CALLERS)))

    asyncio.run(play())
    failures = (next(batches) - 1) // 10
    figure(f"{failures} batches out of memory, {100 * statuses[200] / requests:.2f} % of {requests} requests answered")
    assert failures >= requests // CALLERS // 10
    assert statuses[200] >= 0.99 * requests
