"""The load generator against a server that behaves as told: what is sent, and which times and statuses come out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.bench.client import Connection, Target, probe
from service.bench.load import Run, closed_loop, drive, open_loop
from service.bench.summary import Summary
from service.bench.workload import Requests, Texts, between, parse_mix
from service.errors import ConfigError, TargetError
from tests.fakes.openai_server import FakeServer, faking

pytestmark = pytest.mark.slow


def requests(batch: int = 1) -> Requests:
    return Requests("m", Texts(between(10, 10)), parse_mix(None, batch, 32))


def against(server: FakeServer, work: Any) -> Any:
    """Run `work(target)` while the server listens."""

    async def main() -> Any:
        async with faking(server):
            return await work(server.target)

    return drive(main())


async def at_times(target: Target, times: list[float], **more: Any) -> Run:
    return await open_loop(target, requests(), times, **more)


def test_a_stall_shows_in_the_latency_of_all_who_were_due_during_it() -> None:
    """The first answer takes 0.3 s on the only connection; requests due every 10 ms have to wait, and their wait is
    latency.
    """
    server = FakeServer(lambda number: (0.3 if number == 0 else 0.0, 200))
    times = [number / 100 for number in range(20)]
    seen: Run = against(server, lambda target: at_times(target, times, connections=1))
    latencies = [sample.latency_s for sample in sorted(seen.samples)]
    assert len(latencies) == 20
    assert all(latency >= 0.3 - due - 0.01 for latency, due in zip(latencies, times, strict=True))
    summary = Summary.of(seen, warmup_s=0, until_s=0.2, slo_ms=100)
    assert summary.latency_ms is not None
    assert summary.latency_ms.p50 > 150
    assert summary.goodput.share < 0.2
    assert summary.late_ms is not None
    assert summary.late_ms.max > 250


def test_open_load_does_not_wait_for_answers() -> None:
    server = FakeServer(lambda number: (0.2, 200))
    seen: Run = against(server, lambda target: at_times(target, [number / 100 for number in range(10)]))
    assert seen.seconds < 0.6
    assert [sample.sent - sample.due < 0.05 for sample in seen.samples] == [True] * 10


def test_closed_load_keeps_so_many_under_way_and_no_more() -> None:
    under_way: list[int] = []
    server = FakeServer(lambda number: (0.05, 200))
    original, current = server._behave, 0

    async def watch(target: Target) -> Run:
        return await closed_loop(target, requests(), clients=3, seconds=0.3)

    def behave(number: int) -> tuple[float, int]:
        nonlocal current
        current += 1
        under_way.append(current)
        asyncio.get_running_loop().call_later(0.049, done)
        return original(number)

    def done() -> None:
        nonlocal current
        current -= 1

    server._behave = behave
    seen = against(server, watch)
    assert max(under_way) == 3
    assert 9 <= len(seen.samples) <= 21


def test_errors_are_counted_by_what_they_were() -> None:
    """A status, a hang-up and a timeout, each on the next request; good ones go on."""
    behaviours = {1: (0.0, 429), 2: (0.0, 0), 3: (1.0, 200), 4: (0.0, 503)}
    server = FakeServer(lambda number: behaviours.get(number, (0.0, 200)))
    times = [number / 20 for number in range(8)]
    seen: Run = against(server, lambda target: at_times(target, times, connections=1, timeout_s=0.15))
    summary = Summary.of(seen, warmup_s=0, until_s=1, slo_ms=100)
    assert summary.statuses["429"] == 1
    assert summary.statuses["503"] == 1
    assert summary.statuses["connection"] == 1
    assert summary.statuses["timeout"] >= 1
    assert summary.failed == sum(count for status, count in summary.statuses.items() if status != "200")
    assert sum(summary.statuses.values()) == 8


def test_a_server_that_is_gone_is_not_hammered() -> None:
    seen = drive(closed_loop(Target.of("http://127.0.0.1:9"), requests(), clients=2, seconds=0.2))
    assert {sample.status for sample in seen.samples} == {"connection"}
    assert len(seen.samples) <= 12


def test_what_is_sent_is_an_openai_request_with_a_key() -> None:
    server = FakeServer()

    async def main(_: Target) -> None:
        connection = Connection(Target.of(f"{server.url}/prefix", "/embeddings", key="secret"))
        answer = await connection.post(next(requests(batch=2)).body, 5)
        connection.close()
        assert answer.status == "200"

    against(server, main)
    assert server.heads[0].startswith(b"POST /prefix/embeddings HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer secret\r\n" in server.heads[0]
    texts = server.bodies[0]["input"]
    assert isinstance(texts, list)
    assert (server.bodies[0]["model"], len(texts), len(texts[0].split())) == ("m", 2, 10)


def test_chunked_answers_are_read_and_the_connection_is_kept() -> None:
    server = FakeServer(chunked=True)

    async def main(target: Target) -> list[str]:
        connection = Connection(target, keep_bodies=True)
        answers = [await connection.post(next(requests()).body, 5) for _ in range(3)]
        connection.close()
        return [answer.body.decode() for answer in answers]

    assert against(server, main) == ['{"data":[{"embedding":[0.5]}]}'] * 3


@pytest.mark.parametrize(("status", "said"), [(404, "404"), (0, "connection")])
def test_the_probe_says_what_is_wrong(status: int, said: str) -> None:
    async def main(target: Target) -> None:
        await probe(target, next(requests()), 5)

    with pytest.raises(TargetError, match=said):
        against(FakeServer(lambda number: (0.0, status)), main)


def test_the_probe_wants_an_embedding_for_each_text() -> None:
    short = FakeServer()
    short._answer = lambda status, body: b"HTTP/1.1 200 X\r\ncontent-length: 11\r\n\r\n" + b'{"data":[]}'  # type: ignore[method-assign]

    async def main(target: Target) -> None:
        await probe(target, next(requests(batch=3)), 5)

    against(FakeServer(), main)
    with pytest.raises(TargetError, match="0 embeddings for 3 texts"):
        against(short, main)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://"])
def test_a_url_must_say_where(url: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        Target.of(url)
