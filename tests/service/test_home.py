"""The home directory is for its owner alone, a new one and one that an earlier version made."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.registry.registry import Registry
from service.auth import Keyring
from service.config import Settings
from service.home import prepare_home
from tests.support.artifacts import NAME, numbered, staging
from tests.support.jobs import JobHarness

OLD_HOME = Path(__file__).parents[1] / "data" / "home-0.1.0.tar.xz"


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Begin with a usual mask, and restore the tests' own."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(home: Path) -> list[str]:
    """What other users may do anything with, links aside."""
    paths = [path for path in (home, *home.rglob("*")) if not path.is_symlink()]
    return sorted(path.name for path in paths if path.lstat().st_mode & 0o077)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_old_home_is_closed_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tarfile.open(OLD_HOME) as archive:
        archive.extractall(tmp_path, filter="data")
    home = tmp_path / "home"
    assert len(open_to_others(home)) > 50
    prepare_home(home)
    assert open_to_others(home) == []
    assert (mode(home), mode(home / "files"), mode(home / "sonde.sqlite")) == (0o700, 0o700, 0o600)
    assert "files and directories of" in caplog.text
    (home / "sonde.sqlite").chmod(0o644)
    prepare_home(home)
    assert "other users could open 1 file or directory of" in caplog.text
    caplog.clear()
    prepare_home(home)
    assert caplog.text == ""


def test_what_is_written_from_now_on_is_closed(tmp_path: Path) -> None:
    prepare_home(home := tmp_path / "a" / "home")
    (home / "new").mkdir()
    (home / "new" / "file").write_text("x")
    child = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('x')"
    subprocess.run([sys.executable, "-c", child, str(home / "by-a-child")], check=True)
    assert open_to_others(home) == []


def test_files_and_registry_are_closed_under_any_mask(tmp_path: Path) -> None:
    """What writes to a home need not be a process that prepared it."""
    home = tmp_path / "home"
    Keyring(home / "keys.json").create(["train"])
    harness = JobHarness(home)
    harness.upload()
    harness.close()
    Registry(home / "models").publish(NAME, staging(tmp_path / "staging"), numbered())
    top = [home, *home.iterdir(), *(home / "files").iterdir(), *(home / "models").iterdir()]
    assert [path.name for path in top if path.stat().st_mode & 0o077] == []
    assert mode(next((home / "files").iterdir())) == 0o600


def test_a_directory_with_other_programs_data_keeps_its_mode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("www", "files", ".cache", "hub"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "page").write_text("x")
    tmp_path.chmod(0o755)
    prepare_home(tmp_path)
    assert open_to_others(tmp_path) == sorted([tmp_path.name, ".cache", "hub", "page", "page", "page", "www"])
    assert "keeps its mode: it holds directories that are not Sonde's, such as www" in caplog.text


def test_directories_of_our_own_leave_a_home_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.read({"home": tmp_path})
    for directory in (settings.compiled_directory, settings.registry_directory):
        directory.mkdir()
        (directory / "file").write_text("x")
    tmp_path.chmod(0o755)
    prepare_home(tmp_path)
    assert open_to_others(tmp_path) == []
    assert "keeps its mode" not in caplog.text


def test_links_and_what_others_own_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shared := tmp_path / "shared").mkdir()
    (home := tmp_path / "home").mkdir()
    (home / "models").symlink_to(shared)
    (home / "files").mkdir()
    (home / "files" / "link").symlink_to(shared)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    prepare_home(home)
    assert (mode(home), mode(home / "files")) == (0o755, 0o755)
    monkeypatch.undo()
    prepare_home(home)
    assert (mode(home), mode(home / "files"), mode(shared)) == (0o700, 0o700, 0o755)


def test_a_file_system_without_modes_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "chmod", refuse)
    (tmp_path / "home").mkdir()
    with caplog.at_level(logging.WARNING):
        prepare_home(tmp_path / "home")
    assert "stays open to other users: Read-only file system" in caplog.text
