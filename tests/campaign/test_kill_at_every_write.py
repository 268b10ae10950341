"""SIGKILL at each system call that reaches the disk: the home has the old or the new state, and work goes on."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from models.registry.registry import Registry
from service.auth import Keyring
from tests.campaign.conftest import Figure
from tests.support.artifacts import NAME
from tests.support.jobs import JobHarness
from tests.support.one_write import REFUSED

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.real, pytest.mark.timeout(1200)]

DURABLE = ("fsync", "fdatasync", "rename", "renameat", "renameat2")
WRITING = ("write", "pwrite64", "mkdir", "ftruncate", "copy_file_range", "sendfile", *DURABLE)
KILLED = -9  # strace ends by the signal of the process that it runs
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def test_a_killed_promotion_leaves_the_old_or_the_new_version(tmp_path: Path, figure: Figure) -> None:
    def check(home: Path) -> None:
        registry = Registry(home / "models")
        current = registry.current(NAME)
        assert current is not None
        assert current.version in (1, 2)
        assert current.version in registry.versions(NAME)
        told = [line["generation"] for line in registry.ledger(NAME) if "generation" in line]
        assert told == list(range(1, registry.generation(NAME) + 1))
        assert run("promote", home) == 0
        assert not list(home.glob("models/*/versions/.tmp-*")), "the next publication removes what was left"

    base = promoted(tmp_path / "base")
    points = sum(1 for _ in faults("promote", base, DURABLE, "signal=KILL", {KILLED}, check))
    figure(f"promotion killed at each of {points} points")
    assert points > 5


# These import the database's library under strace for each system call.
SLOW = [pytest.param(operation, marks=pytest.mark.long) for operation in ("upload", "start_job")]


@pytest.mark.parametrize("operation", ["create_key", *SLOW])
def test_a_killed_change_is_whole_or_absent(tmp_path: Path, figure: Figure, operation: str) -> None:
    base = prepared(tmp_path / "base")
    points = sum(1 for _ in faults(operation, base, DURABLE, "signal=KILL", {KILLED}, CHECKS[operation]))
    figure(f"{operation} at {points}")
    assert points > 0


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("operation", ["promote", "create_key", *SLOW])
def test_a_full_disk_at_any_write_is_refused_by_name(
    tmp_path: Path, figure: Figure, operation: str, error: str
) -> None:
    base = promoted(tmp_path / "base") if operation == "promote" else prepared(tmp_path / "base")

    def check(home: Path) -> None:
        assert not [*home.rglob(".tmp-*"), *home.glob("*.tmp"), *home.rglob("incoming-*")], "nothing unfinished stays"
        CHECKS[operation](home)

    points = sum(1 for _ in faults(operation, base, WRITING, f"error={error}", {0, REFUSED}, check))
    figure(f"{operation} with {error} at each of {points} writes")
    assert points > 2


def promoted(home: Path) -> Path:
    """A home with a version in service, and files to publish another."""
    (home / "source").mkdir(parents=True)
    (home / "source" / "head.json").write_text("{}")
    assert run("promote", home) == 0
    return home


def prepared(home: Path) -> Path:
    """A home with a key, a file and the tables of jobs."""
    home.mkdir()
    for operation in ("create_key", "upload"):
        assert run(operation, home) == 0
    return home


def _promotion_goes_on(home: Path) -> None:
    registry = Registry(home / "models")
    before = registry.current(NAME)
    assert before is not None
    assert before.version in registry.versions(NAME)
    assert run("promote", home) == 0
    after = registry.current(NAME)
    assert after is not None
    assert after.version == max(registry.versions(NAME))
    told = [line["generation"] for line in registry.ledger(NAME) if "generation" in line]
    assert told == list(range(1, after.generation + 1))


def _keys_are_kept(home: Path) -> None:
    before = len(Keyring(home / "keys.json").keys)
    assert before in (1, 2)
    assert run("create_key", home) == 0
    assert len(Keyring(home / "keys.json").keys) == before + 1


def _files_are_whole(home: Path) -> None:
    assert run("upload", home) == 0
    harness = JobHarness(home)
    listed = [file.id for file in harness.files.page(None, 100, None)[0]]
    assert len(listed) in (2, 3)
    for file in listed:
        assert harness.files.path(file).is_file()
    harness.close()


def _the_key_has_one_job(home: Path) -> None:
    for _ in range(2):
        assert run("start_job", home) == 0
    harness = JobHarness(home)
    assert len(harness.store.page(None, 100)[0]) == 1
    harness.close()


CHECKS: dict[str, Callable[[Path], None]] = {
    "promote": _promotion_goes_on,
    "create_key": _keys_are_kept,
    "upload": _files_are_whole,
    "start_job": _the_key_has_one_job,
}


def run(operation: str, home: Path, *around: str) -> int:
    """The exit code of a change, perhaps run by another program."""
    command = [*around, sys.executable, "-m", "tests.support.one_write", operation, str(home)]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode in (0, REFUSED, KILLED), ended.stderr[-3000:]
    return ended.returncode


def faults(
    operation: str, base: Path, calls: Sequence[str], fault: str, expected: set[int], check: Callable[[Path], None]
) -> Iterator[tuple[str, int]]:
    """Run a change with a fault at its first system call of each kind, its second, and so on; check the home each time.

    Yields the call and its number.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    for call in calls:
        for number in itertools.count(1):
            home = base.with_name("faulty")
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(base, home)
            log = base.with_name("strace.log")
            filters = ("-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}")
            code = run(operation, home, "strace", "-f", "-qq", "-o", str(log), *filters)
            if "INJECTED" not in log.read_text() and "killed by" not in log.read_text():
                assert code == 0
                break
            assert code in expected, f"{operation} ended with {code} at {call} {number}"
            check(home)
            yield call, number
