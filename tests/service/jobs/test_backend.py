"""What the API uses of jobs: opened by the first call, or at the start where a URL is given."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.config import Settings
from service.errors import ConfigError
from service.jobs.backend import JobBackend
from service.jobs.principal import Principal
from service.jobs.storage import JobStorage

WAIT_S = 30.0


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of each storage that is opened."""
    made: list[Settings] = []
    real = JobStorage.open

    def open_noting(settings: Settings, on_refusal: Callable[[str], None]) -> JobStorage:
        made.append(settings)
        return real(settings, on_refusal)

    monkeypatch.setattr(JobStorage, "open", open_noting)
    return made


def test_the_first_call_opens_the_database(opened: list[Settings], tmp_path: Path) -> None:
    backend = JobBackend.open(Settings.read({"home": tmp_path}))
    assert not opened
    backend.migrate()
    assert backend.store.page(None, 10) == ([], False)
    assert len(opened) == 1
    backend.close()


def test_a_backend_that_opened_nothing_closes_nothing(opened: list[Settings], tmp_path: Path) -> None:
    JobBackend.open(Settings.read({"home": tmp_path})).close()
    assert not opened


def test_threads_and_principals_share_one_database(opened: list[Settings], tmp_path: Path) -> None:
    backend = JobBackend.open(Settings.read({"home": tmp_path}))
    together = threading.Barrier(4)

    def database(caller: str) -> object:
        together.wait(WAIT_S)
        return backend.on_behalf_of(Principal(caller)).database

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(database, "abcd"))
    assert len(opened) == len(found) == 1
    backend.close()


def test_a_database_of_another_kind_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected postgresql://… or sqlite:///…, got mysql://…"):
        JobBackend.open(Settings.read({"home": tmp_path, "database_url": "mysql://host/sonde"}))
