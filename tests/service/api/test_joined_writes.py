"""Joined writes: one call of the system for what is written in a turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from service.api.http_protocol import JoinedWrites


class Sent(asyncio.Transport):
    """Keeps what each call sends."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[Any]] = []
        self.closed = False

    def writelines(self, parts: Iterable[Any]) -> None:
        assert not self.closed
        self.calls.append(list(parts))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def run(work: Callable[[JoinedWrites, Sent], None]) -> Sent:
    sent = Sent()

    async def turn() -> None:
        work(JoinedWrites(sent, asyncio.get_running_loop()), sent)
        await asyncio.sleep(0)

    asyncio.run(turn())
    return sent


def test_head_and_body_are_one_call() -> None:
    def work(writes: JoinedWrites, sent: Sent) -> None:
        writes.write(b"head")
        writes.write(b"body")
        assert not sent.calls

    assert run(work).calls == [[b"head", b"body"]]


def test_what_is_flushed_goes_out_at_once() -> None:
    def work(writes: JoinedWrites, sent: Sent) -> None:
        writes.write(b"all")
        writes.flush()
        assert sent.calls == [[b"all"]]

    assert run(work).calls == [[b"all"]]


def test_each_turn_has_a_call_of_its_own() -> None:
    async def write_twice() -> list[list[Any]]:
        sent = Sent()
        writes = JoinedWrites(sent, asyncio.get_running_loop())
        for part in (b"a", b"b"):
            writes.write(part)
            await asyncio.sleep(0)
        return sent.calls

    assert asyncio.run(write_twice()) == [[b"a"], [b"b"]]


def test_what_was_written_goes_out_before_the_connection_closes() -> None:
    def work(writes: JoinedWrites, sent: Sent) -> None:
        writes.write(b"last")
        writes.close()
        assert sent.closed
        assert writes.is_closing()

    assert run(work).calls == [[b"last"]]


def test_nothing_is_written_to_a_connection_that_is_gone() -> None:
    def work(writes: JoinedWrites, sent: Sent) -> None:
        writes.write(b"late")
        sent.close()

    assert run(work).calls == []
