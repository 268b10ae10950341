"""A worker's lease while the database fails and comes back."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from service.errors import StorageFull, Unavailable
from service.jobs.database import Database
from service.jobs.leases import LeaseRenewer, WorkerLeases
from tests.support.server import wait_until


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [Unavailable("away"), StorageFull("no space is left for the database of jobs"), RuntimeError("broken")]
)
def test_a_lease_is_renewed_again_once_the_database_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    database = Database("", tmp_path)
    database.migrate()
    renewer = LeaseRenewer(WorkerLeases(database, 0.4), "worker")
    renewer.open()
    failed: list[str] = []

    def fail(self: WorkerLeases, lease: str) -> bool:
        failed.append(lease)
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(WorkerLeases, "renew", fail)
        wait_until(lambda: len(failed) >= 5, 5)
    wait_until(lambda: renewer.holds(renewer.lease), 5)
    renewer.close()
    database.close()


def test_a_lease_that_could_not_be_given_up_is_not_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the job that its worker has left would never count as lost."""
    with closing(Database("", tmp_path)) as database:
        database.migrate()
        leases = WorkerLeases(database, 30.0)
        renewer = LeaseRenewer(leases, "worker")
        renewer.open()
        left = renewer.lease
        with monkeypatch.context() as patch:
            patch.setattr(
                WorkerLeases, "close", lambda self, lease: (_ for _ in ()).throw(StorageFull("no space is left"))
            )
            with pytest.raises(StorageFull):
                renewer.replace()
        assert not renewer.holds(left)
        renewer.renew()
        assert renewer.lease != left
        assert renewer.holds(renewer.lease)
        renewer.close()


def test_a_lease_that_was_not_renewed_in_time_is_told_with_the_setting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Database("", tmp_path)) as database:
        database.migrate()
        leases = WorkerLeases(database, 30.0)
        renewer = LeaseRenewer(leases, "worker")
        renewer.open()
        leases.close(renewer.lease)
        renewer.renew()
        renewer.close()
    assert "was not renewed within 30 s" in caplog.text
    assert "--job-lease-s" in caplog.text
