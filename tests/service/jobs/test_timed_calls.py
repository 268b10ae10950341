"""Calls of the database in threads of their own: limited in time and number, and without effect once they are late."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.errors import Unavailable
from service.jobs.database import Database
from service.jobs.records import Job
from service.jobs.store import JobStore
from service.jobs.timed_calls import CallExecutor
from tests.support.jobs import new_job

LONG_S = 30.0


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends the calls that hang."""
    event = threading.Event()
    yield event
    event.set()


async def works(calls: CallExecutor) -> str:
    """The result of a call, once the threads are free again."""
    async with asyncio.timeout(LONG_S):
        while True:
            try:
                return await calls.run(LONG_S, lambda: "works")
            except Unavailable:
                await asyncio.sleep(0.01)


def refused(error: object) -> bool:
    return isinstance(error, Unavailable) and error.retry_after_s == 2


def test_a_call_that_hangs_is_given_up_at_its_limit(release: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        with closing(CallExecutor()) as calls:
            began = time.monotonic()
            with pytest.raises(Unavailable, match="the database of jobs does not answer in time") as caught:
                await calls.run(0.2, release.wait, LONG_S)
            assert time.monotonic() - began < 5
            assert refused(caught.value)
            release.set()
            while not caplog.records:
                await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING):
        asyncio.run(check())
    assert "too late" in caplog.text


def test_a_call_whose_caller_has_left_never_begins(release: threading.Event) -> None:
    async def check() -> None:
        begun: list[int] = []
        with closing(CallExecutor(threads=1)) as calls:
            hanging = asyncio.ensure_future(calls.run(LONG_S, release.wait, LONG_S))
            await asyncio.sleep(0.1)
            with pytest.raises(Unavailable):
                await calls.run(0.1, begun.append, 1)
            release.set()
            assert await hanging
            await calls.run(LONG_S, begun.append, 2)
        assert begun == [2]

    asyncio.run(check())


def test_calls_that_hang_are_limited_in_number_and_more_are_refused_at_once(release: threading.Event) -> None:
    async def check() -> None:
        with closing(CallExecutor(threads=2, max_calls=4)) as calls:
            given_up = [calls.run(0.1, release.wait, LONG_S) for _ in range(4)]
            assert all(map(refused, await asyncio.gather(*given_up, return_exceptions=True)))
            began = time.monotonic()
            with pytest.raises(Unavailable, match="the database of jobs has too many calls to answer"):
                await calls.run(LONG_S, release.wait, LONG_S)
            assert time.monotonic() - began < 1
            release.set()
            assert await works(calls) == "works"

    asyncio.run(check())


def test_other_threads_of_the_process_are_not_taken(release: threading.Event) -> None:
    async def check() -> None:
        with closing(CallExecutor()) as calls:
            hanging = [asyncio.ensure_future(calls.run(LONG_S, release.wait, LONG_S)) for _ in range(100)]
            await asyncio.sleep(0.1)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
            release.set()
            assert all(await asyncio.gather(*hanging))

    asyncio.run(check())


def test_an_error_of_a_call_reaches_its_caller() -> None:
    async def check() -> None:
        with closing(CallExecutor()) as calls:
            with pytest.raises(ValueError, match="invalid literal"):
                await calls.run(LONG_S, int, "x")
            assert await calls.run(LONG_S, int, "11", base=2) == 3

    asyncio.run(check())


def test_a_job_that_was_refused_for_its_time_is_not_stored_later(database: Database, tmp_path: Path) -> None:
    store = JobStore(database, tmp_path)
    given_up, rendered = threading.Event(), threading.Event()

    def render(job: Job) -> dict[str, Any]:
        assert given_up.wait(LONG_S)
        rendered.set()
        return {}

    async def check() -> None:
        with closing(CallExecutor(threads=1)) as calls:
            with pytest.raises(Unavailable):
                await calls.run(0.2, store.create, new_job(), render)
            given_up.set()
            await calls.run(LONG_S, rendered.wait)  # after the first, as there is one thread

    asyncio.run(check())
    assert rendered.is_set()
    assert store.page(None, 10) == ([], False)


def test_what_must_be_cleaned_up_is_in_any_case(release: threading.Event) -> None:
    async def check() -> None:
        cleaned = threading.Event()
        with closing(CallExecutor(threads=1, max_calls=1)) as calls:
            hanging = asyncio.ensure_future(calls.run(LONG_S, release.wait, LONG_S))
            await asyncio.sleep(0.1)
            began = time.monotonic()
            await calls.clean_up(cleaned.set)
            assert time.monotonic() - began < 5
            assert not cleaned.is_set()
            release.set()
            await hanging
            assert await asyncio.to_thread(cleaned.wait, LONG_S)

    asyncio.run(check())
