"""Callers that hang up leave no work, no place in the queue and no open socket."""

from __future__ import annotations

import asyncio
import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.campaign.conftest import Figure
from tests.support.app import MakeApp
from tests.support.call import HELD_S, Call, held, texts, wait_for_items
from tests.support.processes import open_files
from tests.support.server import Served, metric, wait_until
from tests.support.size import Size

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"
TEXTS = 20


def test_callers_that_hang_up_in_the_queue_are_not_computed(make_app: MakeApp, size: Size, figure: Figure) -> None:
    count = size.of(200, 1000)

    async def play() -> None:
        app, model = held(make_app)
        try:
            first = Call(app, {"model": "fake", "input": "hello"})
            assert await asyncio.to_thread(model.entered.wait, HELD_S)
            gone = [Call(app, {"model": "fake", "input": f"w{number}"}) for number in range(count)]
            await wait_for_items(app, count + 1)
            for call in gone:
                call.hang_up()
            assert [await call.status() for call in gone] == [499] * count
        finally:
            model.gate.set()  # also where this fails: a batch that waits keeps the application from closing
        assert await first.status() == 200
        figure(f"{count} hung up, {sum(texts(model)) - 1} of them computed")
        assert texts(model) == [1]
        assert app.state.manager.find("fake")._admission.items == 0

    asyncio.run(play())


def test_hang_ups_over_http_leave_a_server_as_it_was(server: Served, size: Size, figure: Figure) -> None:
    count = size.of(100, 1000)
    assert _post(server.url).status_code == 200
    files, tokens = open_files(server.process.pid), metric(server.url, "sonde_tokens_total")
    for number in range(count):
        _send_and_hang_up(server.url, number)
    wait_until(lambda: metric(server.url, "sonde_requests_in_flight") == 1, 60)  # the one that asks
    assert metric(server.url, "sonde_queue_items") == 0
    wait_until(lambda: open_files(server.process.pid) <= files, 10)
    computed = (metric(server.url, "sonde_tokens_total") - tokens) / (count * TEXTS * 12)
    figure(f"{count} over HTTP, {100 * computed:.0f} % of their tokens computed")
    assert computed < 0.5
    assert _post(server.url).status_code == 200


def _post(url: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/embeddings", json={"model": MODEL, "input": "still here"}, timeout=30)


def _send_and_hang_up(url: str, number: int) -> None:
    texts = [f"request {number} text {at} about a card that was lost" for at in range(TEXTS)]
    body = json.dumps({"model": MODEL, "input": texts}).encode()
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as gone:
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        gone.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
