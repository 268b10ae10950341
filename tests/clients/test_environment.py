"""Directories that are made once for their content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.clients.environment import kept


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sonde"


def test_a_content_is_made_once(cache: Path) -> None:
    made: list[Path] = []
    again = [kept("thing", content, made.append) for content in (b"a", b"a", b"b")]
    assert made == [again[0], again[2]]


def test_what_was_not_finished_is_made_anew(cache: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        kept("thing", b"a", fail)
    assert [path.name for path in kept("thing", b"a", lambda _: None).iterdir()] == ["ready"]


def test_what_no_run_has_asked_for_in_a_month_is_removed(cache: Path) -> None:
    old, used = (kept("thing", content, lambda _: None) for content in (b"old", b"used"))
    for directory in (old, used):
        os.utime(directory / "ready", (0, 0))
    kept("thing", b"used", lambda _: None)
    assert list(cache.glob("thing-*")) == [used]
