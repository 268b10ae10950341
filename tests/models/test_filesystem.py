"""Errors of a full disk are recognised from every library."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
from safetensors import SafetensorError

from models.filesystem import is_full


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
