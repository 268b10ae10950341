"""Harnesses over both databases, with and without a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.jobs import JobHarness, WorkerProcess, workers


# Tests marked BOTH_DATABASES depend on the database; the others run on PostgreSQL only with `-m long`.
@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobHarness]:
    url = request.getfixturevalue("postgresql").new_database() if request.param == "postgresql" else ""
    made = JobHarness(tmp_path, url)
    yield made
    made.close()


@pytest.fixture
def worker(harness: JobHarness) -> Iterator[WorkerProcess]:
    with workers(harness) as running:
        yield running[0]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobHarness]:
    """With a worker that tests share; each trains under names of its own."""
    url = request.getfixturevalue("postgresql").new_database() if request.param == "postgresql" else ""
    made = JobHarness(tmp_path_factory.mktemp("shared"), url)
    with contextlib.closing(made), workers(made):
        yield made
