"""Errors of a full disk are recognised from every library, and file systems that other hosts share."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from safetensors import SafetensorError

from models.filesystem import is_full, is_on_network


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EIO, "x"), False),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)"), False),
        (ValueError("28"), False),
        (sqlite3.ProgrammingError("SQLite was not asked"), False),
        (None, False),
    ],
)
def test_errors_of_a_full_disk_are_recognised(error: Exception | None, full: bool) -> None:
    assert is_full(error) == full


def test_sqlite_says_so_in_its_own_way(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "small.sqlite")
    database.execute("CREATE TABLE rows (row BLOB)")
    database.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as full:
        database.execute("INSERT INTO rows VALUES (zeroblob(100000))")
    with pytest.raises(sqlite3.OperationalError) as unknown:
        database.execute("SELECT * FROM nowhere")
    assert (is_full(full.value), is_full(unknown.value)) == (True, False)
    full.value.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE  # as on a tmpfs of 16 KiB
    assert is_full(full.value)
    database.close()


@pytest.mark.parametrize(
    ("kind", "shared"),
    [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("ceph", True), ("ext4", False), ("fuseblk", False)],
)
def test_a_file_system_of_a_network_is_recognised(
    kind: str, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [SimpleNamespace(mountpoint="/", fstype="nfs"), SimpleNamespace(mountpoint=str(tmp_path), fstype=kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda *, all: mounts)  # noqa: A006  # as psutil calls it
    assert is_on_network(tmp_path / "model" / "weights") is shared


def test_where_nothing_is_known_of_a_file_system_it_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "disk_partitions", lambda *, all: [])  # noqa: A006
    assert not is_on_network(tmp_path)
