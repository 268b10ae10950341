"""The last use of each key is kept, at little cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.key_use import DIRECTORY, KeyUse


def test_a_use_is_noted_at_most_once_a_minute(tmp_path: Path) -> None:
    now = [0.0]
    use = KeyUse(tmp_path, lambda: now[0])
    assert use.last("key-1") is None
    use.note("key-1")
    assert use.last("key-1") is not None
    for seconds, kept in ((59.0, True), (60.0, False)):
        os.utime(tmp_path / DIRECTORY / "key-1", (1.0, 1.0))
        now[0] = seconds
        use.note("key-1")
        assert (use.last("key-1") == 1.0) is kept
    use.forget("key-1")
    use.forget("key-1")
    assert use.last("key-1") is None


def test_an_id_is_never_a_path(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    KeyUse(home).note("../../outside")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["..%2F..%2Foutside"]


def test_a_home_that_cannot_be_written_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    use = KeyUse(tmp_path / "gone")
    for key in ("key-1", "key-2"):
        use.note(key)
    assert ["the last use of keys is not kept" in record.message for record in caplog.records] == [True]
