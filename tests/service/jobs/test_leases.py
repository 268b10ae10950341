"""A worker's lease is renewed whatever befalls the database meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import StorageFull, Unavailable
from service.jobs.database import Database
from service.jobs.leases import LeaseRenewer, Leases
from tests.support.server import wait_until


@pytest.mark.parametrize(
    "fault", [Unavailable("away"), StorageFull("no space is left for the database of jobs"), RuntimeError("broken")]
)
def test_a_lease_is_renewed_again_once_the_database_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    database = Database("", tmp_path)
    database.migrate()
    keeper = LeaseRenewer(Leases(database, 0.4), "worker", "host", 1)
    keeper.open()
    failed: list[str] = []

    def fail(self: Leases, lease: str) -> bool:
        failed.append(lease)
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(Leases, "renew", fail)
        wait_until(lambda: len(failed) >= 5, 5)
    wait_until(lambda: keeper.holds(keeper.lease), 5)
    keeper.close()
    database.close()
