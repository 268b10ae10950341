"""A process that is frozen for good while it changes a name keeps no other out, and writes nothing when it wakes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.errors import LockLost, RegistryBusy
from models.registry.fenced_lock import FencedLock
from models.registry.registry import Registry
from tests.support.artifacts import NAME, numbered, staging, tree
from tests.support.server import wait_until

LEASE_S = 0.4

# A process that freezes right before it calls `AT` for the `NTH` time (from 0), then says what came of `CHANGE`.
_FROZEN = """
import os, signal, sys
from pathlib import Path
from models.errors import LockLost
from models.registry.registry import Registry
from tests.support.artifacts import NAME, numbered
registry, staged = Registry(Path({root!r}), lease_s={lease_s}), Path({staged!r})
real, calls = os.{at}, iter(range(100))
def freeze(*given, **more):
    if next(calls) == {nth}:
        os.kill(os.getpid(), signal.SIGSTOP)
    return real(*given, **more)
os.{at} = freeze
try:
    {change}
except LockLost:
    print("lost")
"""
PUBLISH = 'registry.publish(NAME, staged, numbered(job="ftjob-frozen"))'
PROMOTE = 'registry.promote(NAME, 2, by="frozen", why="")'
DELETE = "registry.delete(NAME, 2)"
ALIAS = 'registry.set_alias("frozen", NAME)'


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two versions, of which the first serves."""
    made = Registry(tmp_path / "models", lease_s=LEASE_S)
    for job in ("ftjob-1", "ftjob-2"):
        made.publish(NAME, staging(tmp_path / "staged"), numbered(job=job))
    made.promote(NAME, 1, by="test", why="")
    return made


@contextmanager
def frozen(tmp_path: Path, change: str, at: str, nth: int) -> Iterator[subprocess.Popen[str]]:
    """A process that has frozen inside `change`."""
    root, staged = str(tmp_path / "models"), str(tmp_path / "staged")
    code = _FROZEN.format(root=root, staged=staged, lease_s=LEASE_S, at=at, nth=nth, change=change)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: _state(process.pid) in "TZ", 30)
            assert _state(process.pid) == "T", "it ended before it froze"
            yield process
        finally:
            process.kill()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wake(process: subprocess.Popen[str]) -> str:
    """What the process says of its change after it woke."""
    os.kill(process.pid, signal.SIGCONT)
    return process.communicate(timeout=30)[0].strip()


@pytest.mark.real
@pytest.mark.parametrize(
    ("change", "at", "nth"),
    [
        pytest.param(PUBLISH, "fsync", 0, id="publishes: copies files"),
        pytest.param(PUBLISH, "replace", 0, id="publishes: names the version"),
        pytest.param(PUBLISH, "replace", 1, id="publishes: writes the ledger"),
        pytest.param(PROMOTE, "fsync", 0, id="promotes: writes the pointer"),
        pytest.param(PROMOTE, "replace", 0, id="promotes: names the pointer"),
        pytest.param(DELETE, "replace", 0, id="deletes: marks the version"),
    ],
)
def test_a_frozen_process_keeps_no_other_out_and_writes_nothing(
    registry: Registry, tmp_path: Path, change: str, at: str, nth: int
) -> None:
    with frozen(tmp_path, change, at, nth) as process:
        began = time.monotonic()
        version = registry.publish(NAME, tmp_path / "staged", numbered(job="ftjob-3"))
        registry.promote(NAME, version, by="test", why="")
        assert time.monotonic() - began < 10 * LEASE_S
        before = tree(tmp_path / "models")
        assert wake(process) == "lost"
        assert tree(tmp_path / "models") == before
    assert (registry.current(NAME) or pytest.fail("nothing serves")).version == version
    assert registry.published(NAME, "ftjob-3") == version
    assert [line["generation"] for line in registry.ledger(NAME) if "generation" in line] == [1, 2]


@pytest.mark.real
def test_a_process_that_is_frozen_over_the_aliases_keeps_no_other_out(registry: Registry, tmp_path: Path) -> None:
    with frozen(tmp_path, ALIAS, "replace", 0) as process:
        registry.set_alias("prod", NAME)
        assert wake(process) == "lost"
    assert registry.aliases() == {"prod": NAME}


@pytest.mark.real
def test_a_change_that_may_not_wait_says_that_another_is_on(registry: Registry, tmp_path: Path) -> None:
    impatient = Registry(tmp_path / "models", lease_s=30, max_wait_s=0.2)
    with frozen(tmp_path, PROMOTE, "replace", 0), pytest.raises(RegistryBusy, match="try again"):
        impatient.withdraw(NAME, by="test", why="")
    assert (registry.current(NAME) or pytest.fail("nothing serves")).version == 1


def test_a_holder_that_lives_keeps_its_lock_beyond_the_lease(tmp_path: Path) -> None:
    lock, other = (FencedLock(tmp_path / ".lock", lease_s=LEASE_S, max_wait_s=wait) for wait in (None, 3 * LEASE_S))
    with lock.hold() as permit:
        with pytest.raises(RegistryBusy), other.hold():
            pass
        permit()


def test_one_of_several_waiters_takes_over_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with path.open("w") as abandoned:
        fcntl.flock(abandoned, fcntl.LOCK_EX)  # and is never renewed
        inside: list[int] = []

        def enter(number: int) -> None:
            with FencedLock(path, lease_s=LEASE_S).hold() as permit:
                inside.append(number)
                time.sleep(0.02)
                permit()
                assert inside[-1] == number
                inside.append(number)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(enter, range(6)))  # raises what a thread raised
    assert inside[::2] == inside[1::2]
    assert len(inside) == 12
    assert [one.name for one in tmp_path.iterdir()] == [".lock-1"]


def test_the_holder_from_before_a_takeover_is_refused(tmp_path: Path) -> None:
    lock = FencedLock(tmp_path / ".lock", lease_s=LEASE_S)
    with lock.hold() as permit:
        permit()
        (tmp_path / ".lock-1").touch()
        with pytest.raises(LockLost, match="stood still"):
            permit()
