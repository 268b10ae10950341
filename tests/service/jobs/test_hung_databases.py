"""Databases that hang: 503 within 10 s on the routes that need them, and all other routes answer as before."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError

from service.errors import Unavailable
from service.jobs.database import Database
from service.jobs.limited_connection import LimitedConnection
from service.jobs.store import JobStore
from service.jobs.tables import schema_version
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.databases import Postgres
from tests.support.jobs import JobHarness, exists, workers
from tests.support.server import wait_until
from tests.support.unloaded_clock import unloaded_s

pytestmark = [pytest.mark.slow, pytest.mark.real]

LIMIT_S = 10.0
ROWS = b'{"text": "a", "label": "b"}\n'
JOBS = "/v1/fine_tuning/jobs"
Hang = Callable[[], AbstractContextManager[None]]

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked_by_another_process(database: Path) -> Iterator[None]:
    command = [sys.executable, "-c", _HOLD, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(30)


@asynccontextmanager
async def client_of(application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=60) as client:
        yield client


async def upload(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/v1/files", files={"file": ("a.jsonl", ROWS)}, data={"purpose": "fine-tune"})


async def create(client: httpx.AsyncClient, file: str, key: str = "") -> httpx.Response:
    headers = {"idempotency-key": key} if key else {}
    return await client.post(JOBS, json={"model": "fake", "training_file": file}, headers=headers)


async def send_feedback(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/v1/feedback", json={"model": "fake", "text": "t", "correct_label": "b"})


async def write_all(client: httpx.AsyncClient, file: str, job: str) -> list[httpx.Response]:
    """One request to each route that writes to the database."""
    return await asyncio.gather(
        create(client, file),
        create(client, file, "key"),
        upload(client),
        send_feedback(client),
        client.post(f"{JOBS}/{job}/cancel"),
        client.post(f"{JOBS}/{job}/pause"),
        client.post(f"{JOBS}/{job}/resume"),
        client.delete(f"/v1/files/{file}"),
    )


async def read_all(client: httpx.AsyncClient, file: str, job: str) -> list[httpx.Response]:
    """One request to each route that reads the database."""
    paths = [JOBS, f"{JOBS}/{job}", f"{JOBS}/{job}/events", f"{JOBS}/{job}/checkpoints", f"{JOBS}/{job}/report"]
    paths += [f"{JOBS}/{job}/report/plots/series.svg", "/v1/files", f"/v1/files/{file}", f"/v1/files/{file}/content"]
    return await asyncio.gather(*map(client.get, paths))


async def others_answer(client: httpx.AsyncClient) -> None:
    """The routes that need no database answer at once."""
    for path in ("/health/live", "/health", "/metrics", "/v1/models", "/v1/aliases", "/version"):
        began = unloaded_s()
        assert (await client.get(path)).status_code == 200
        assert unloaded_s() - began < 2, path
    began = unloaded_s()
    assert (await client.post("/v1/embeddings", json={"model": "fake", "input": "a"})).status_code == 200
    assert unloaded_s() - began < 2


async def all_unavailable(client: httpx.AsyncClient, file: str, job: str, *, reads_too: bool, times: int = 5) -> None:
    """Many requests to each route, all of them refused in time, while other routes answer."""
    began = unloaded_s()
    waiting = [asyncio.ensure_future(write_all(client, file, job)) for _ in range(times)]
    if reads_too:
        waiting += [asyncio.ensure_future(read_all(client, file, job)) for _ in range(times)]
    while not all(one.done() for one in waiting):
        await asyncio.sleep(0.5)
        await others_answer(client)
    assert unloaded_s() - began < LIMIT_S
    answers = [answer for one in waiting for answer in one.result()]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable"), answer.request.url
        assert answer.headers["retry-after"] == "2"


async def hangs_and_comes_back(client: httpx.AsyncClient, hang: Hang, *, reads_too: bool) -> None:
    file = (await upload(client)).json()["id"]
    job = (await create(client, file)).json()["id"]
    with hang():
        await all_unavailable(client, file, job, reads_too=reads_too)
        if not reads_too:
            assert {answer.status_code for answer in await read_all(client, file, job)} == {200, 404}
    wait_s = time.monotonic() + 20
    while (listed := await client.get(JOBS)).status_code != 200 or (await send_feedback(client)).status_code != 200:
        assert time.monotonic() < wait_s, listed.text
        await asyncio.sleep(0.5)
    assert [one["id"] for one in listed.json()["data"]] == [job], "what was refused does not exist"
    assert (await create(client, file, "key")).status_code == 200


def test_a_sqlite_file_that_another_process_locks(make_app: MakeApp, tmp_path: Path) -> None:
    async def check() -> None:
        async with client_of(make_app(FakeModel())) as client:
            hang = lambda: locked_by_another_process(tmp_path / "sonde.sqlite")  # noqa: E731
            await hangs_and_comes_back(client, hang, reads_too=False)

    asyncio.run(check())


def test_a_sqlite_file_that_is_locked_from_the_start(make_app: MakeApp, tmp_path: Path) -> None:
    async def check() -> None:
        async with client_of(make_app(FakeModel())) as client:
            with locked_by_another_process(tmp_path / "sonde.sqlite"):
                await all_unavailable(client, "file-1", "ftjob-1", reads_too=True)
            assert (await client.get(JOBS)).status_code == 200

    asyncio.run(check())


def test_a_postgresql_that_is_frozen(make_app: MakeApp, postgresql: Postgres) -> None:
    async def check() -> None:
        async with client_of(make_app(FakeModel(), database_url=postgresql.new_database())) as client:
            await hangs_and_comes_back(client, postgresql.frozen, reads_too=True)

    asyncio.run(check())


def test_a_server_that_takes_connections_and_never_answers(make_app: MakeApp) -> None:
    async def check(port: int) -> None:
        async with client_of(make_app(FakeModel(), database_url=f"postgresql://sonde@127.0.0.1:{port}/x")) as client:
            await all_unavailable(client, "file-1", "ftjob-1", reads_too=True)

    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        asyncio.run(check(silent.getsockname()[1]))


def test_a_thread_is_free_again_though_the_server_stays_frozen(tmp_path: Path, postgresql: Postgres) -> None:
    with closing(Database(postgresql.new_database(), tmp_path, 1.0)) as database:
        database.migrate()
        with postgresql.frozen():
            for _ in range(2):  # once with a connection from before, once with a new one
                began = unloaded_s()
                with pytest.raises(Unavailable), database.read():
                    pytest.fail("the server is frozen")
                assert unloaded_s() - began < LIMIT_S
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


def test_a_row_that_another_session_locks_is_given_up_by_the_server(tmp_path: Path, postgresql: Postgres) -> None:
    url = postgresql.new_database()
    with closing(Database(url, tmp_path, 4.0)) as holder, closing(Database(url, tmp_path, 1.0)) as waiting:
        holder.migrate()
        lock = sa.select(schema_version.c.version).with_for_update()
        with holder.write() as connection:
            connection.execute(lock)
            with pytest.raises(Unavailable) as given_up, waiting.write() as other:
                other.execute(lock)
    cause = given_up.value.__cause__
    assert isinstance(cause, DBAPIError)
    assert isinstance(cause.orig, psycopg.Error)
    assert cause.orig.sqlstate, "the server ends it after 1 s, this side only after 2 s"


def freezing_after_commit(monkeypatch: pytest.MonkeyPatch, freeze: Callable[[], object]) -> Callable[..., None]:
    """`JobStore._add_event`, which has the server freeze as soon as the event is committed."""
    add_event, commit = JobStore._add_event, LimitedConnection.commit

    def commit_and_freeze(self: LimitedConnection) -> None:
        commit(self)
        monkeypatch.setattr(LimitedConnection, "commit", commit)
        freeze()

    def add(*arguments: Any) -> None:
        add_event(*arguments)
        monkeypatch.setattr(LimitedConnection, "commit", commit_and_freeze)

    return add


def test_a_job_that_is_stored_is_answered_whatever_the_database_does_next(
    make_app: MakeApp, postgresql: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        async with client_of(make_app(FakeModel(), database_url=postgresql.new_database())) as client:
            file = (await upload(client)).json()["id"]
            frozen = postgresql.frozen()
            monkeypatch.setattr(JobStore, "_add_event", freezing_after_commit(monkeypatch, frozen.__enter__))
            began = unloaded_s()
            answer = await create(client, file)
            took_s = unloaded_s() - began
            frozen.__exit__(None, None, None)
            assert answer.status_code == 200, answer.text
            assert took_s < 2
            assert (await client.get(f"{JOBS}/{answer.json()['id']}")).status_code == 200

    asyncio.run(check())


@pytest.mark.parametrize("how", ["frozen", "locked"])
def test_a_worker_outlives_a_database_that_hangs_longer_than_its_lease(
    tmp_path: Path, postgresql: Postgres, how: str
) -> None:
    url = postgresql.new_database() if how == "frozen" else ""
    with closing(JobHarness(tmp_path, url)) as harness, workers(harness) as (worker,):
        job = harness.submit(steps=400, step_s=0.2, step_s_again=0.002)
        harness.until_step(job, 3)
        trainer = harness.trace(job)[-1][2]
        hang = postgresql.frozen() if how == "frozen" else locked_by_another_process(tmp_path / "sonde.sqlite")
        with hang:  # a call that hangs is given up after 6 s at most, and the lease of 2 s is over by then
            wait_until(lambda: not exists(trainer), 60)
            assert len(harness.trace(job)) < 400, "without a lease it stops training"
        assert worker.running
        assert harness.until(job, timeout_s=300).status == "succeeded"
