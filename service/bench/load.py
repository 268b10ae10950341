"""Load on a server: closed (clients wait for answers) or open (requests at given times)."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from service.bench.client import AnyTarget, BenchResponse
from service.bench.workload import PreparedRequest

T = TypeVar("T")
# A dead server refuses at once; clients that retried at once would only burn the processor.
_AFTER_FAILURE_S = 0.05


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, on uvloop where there is one: it sends 1.5 times as many requests.

    Garbage collection ignores objects made before: its pause, 0.1 s with PyTorch loaded, would count as the server's.
    """
    gc.collect()
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            return runner.run(work)
    finally:
        gc.unfreeze()


class Sample(NamedTuple):
    """One request: its times (seconds from the start), its status and its content."""

    due: float
    sent: float
    ended: float
    status: str
    kind: str
    inputs: int
    tokens: int

    @property
    def latency_s(self) -> float:
        """Seconds since it was due: a wait in the generator for earlier answers counts."""
        return self.ended - self.due

    @property
    def good(self) -> bool:
        return self.status == "200"


@dataclass(slots=True)
class Run:
    """Every sample of one load, and the generator's CPU seconds."""

    samples: list[Sample] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    cpu_s: float = field(default_factory=time.process_time)
    seconds: float = 0.0

    def add(self, request: PreparedRequest, due: float, sent: float, answer: BenchResponse) -> None:
        """Add a sample: `due` in seconds from the start, `sent` on `time.perf_counter`."""
        times = (due, sent - self.began, answer.ended - self.began)
        self.samples.append(Sample(*times, answer.status, request.kind, request.inputs, request.tokens))

    def finish(self) -> Run:
        """Stop the clocks."""
        self.seconds = time.perf_counter() - self.began
        self.cpu_s = time.process_time() - self.cpu_s
        return self


async def closed_loop(
    target: AnyTarget, requests: Iterator[PreparedRequest], *, clients: int, seconds: float, timeout_s: float = 60.0
) -> Run:
    """Let `clients` send a request after each answer, for `seconds`; await the last answers."""
    run = Run()

    async def client() -> None:
        connection = target.connect()
        while time.perf_counter() - run.began < seconds:
            request = next(requests)
            sent = time.perf_counter()
            answer = await connection.post(request.body, timeout_s, request.headers)
            run.add(request, sent - run.began, sent, answer)
            if not answer.status.isdigit():
                await asyncio.sleep(_AFTER_FAILURE_S)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return run.finish()


async def open_loop(
    target: AnyTarget,
    requests: Iterator[PreparedRequest],
    arrivals: Iterable[float],
    *,
    connections: int = 256,
    timeout_s: float = 60.0,
) -> Run:
    """Send requests at the given seconds from the start, over at most `connections`.

    A request waits for a free connection, and its wait counts. Bodies are made before the start.
    """
    planned = [(at, next(requests)) for at in arrivals]
    free = [target.connect() for _ in range(connections)]
    freed = asyncio.Semaphore(connections)
    run = Run()

    async def one(at: float, request: PreparedRequest) -> None:
        async with freed:
            connection = free.pop()  # the one used last, so that a few stay warm
            sent = time.perf_counter()
            left = max(0.0, run.began + at + timeout_s - sent)
            answer = await connection.post(request.body, left, request.headers)
            free.append(connection)
        run.add(request, at, sent, answer)

    async with asyncio.TaskGroup() as group:
        for at, request in planned:
            await asyncio.sleep(max(0.0, run.began + at - time.perf_counter()))
            group.create_task(one(at, request))
    for connection in free:
        connection.close()
    return run.finish()


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
