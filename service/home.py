"""The home directory and what Sonde keeps in it, for its owner alone."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from models.counted import counted

log = logging.getLogger(__name__)

_DIRECTORIES = frozenset({"files", "jobs", "models", "cache", "compiled", "keys.used"})
_FILES = ("keys.", "sonde.sqlite", "queue.sqlite")
# Other directories that may be in a home of Sonde's own: the hub's cache, and what file systems keep at their root.
_TOLERATED = frozenset({"hub", "lost+found"})
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def prepare_home(home: Path) -> None:
    """Make the home, and give neither its files nor what this process writes from now on to other users.

    Takes permissions away from what earlier versions left open, where this user owns it. Links are not followed. A home
    that holds foreign directories keeps its own mode, since other programs may need it.
    """
    os.umask(_OTHERS)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        entries = list(home.iterdir())
    except OSError as error:  # serving models needs no home
        log.warning("%s cannot be opened: %s", home, error.strerror)
        return
    foreign = [path.name for path in entries if _is_foreign_directory(path)]
    if foreign:
        log.warning("%s keeps its mode: it holds directories that are not Sonde's, such as %s", home, foreign[0])
    closed = sum(_close(path) for path in (*_own_paths(entries), *([] if foreign else [home])))
    if closed:
        opened = counted(closed, "file or directory", "files and directories")
        log.warning("other users could open %s of %s: no longer", opened, home)


def _own_paths(entries: Iterable[Path]) -> Iterator[Path]:
    """What Sonde keeps in its home, of the home's entries."""
    for path in entries:
        if path.name in _DIRECTORIES and path.is_dir() and not path.is_symlink():
            yield path
            yield from path.rglob("*")
        elif path.name.startswith(_FILES):
            yield path


def _is_foreign_directory(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and path.name not in _DIRECTORIES | _TOLERATED


def _close(path: Path) -> bool:
    """Take all permissions of other users away; whether there were any."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid() or not found.st_mode & _OTHERS:
            return False
        path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
    except FileNotFoundError:  # another process removed it
        return False
    except OSError as error:  # a file system that is read-only, or knows no modes
        log.warning("%s stays open to other users: %s", path, error.strerror)
        return False
    return True
