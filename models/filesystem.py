"""Files that survive a power cut, digests, JSON files, and the errors of a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

JsonT = TypeVar("JsonT", dict[str, Any], list[Any])

# Called right before a change; raises where it is not permitted any more.
Permit = Callable[[], None]


def permit_always() -> None:
    """Permit every change."""


# The prefix of unfinished files. After a power cut some stay; readers ignore them and the next writer removes them.
TEMPORARY = ".tmp-"


# How the types of file systems begin that other hosts may change; `fuse.` has object stores and sshfs.
_NETWORK = (
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.",
    "gluster",
    "gpfs",
    "lustre",
    "ncp",
    "nfs",
    "smb",
    "virtiofs",
)


def is_on_network(path: Path) -> bool:
    """Whether the file system of a path belongs to other hosts, too, as far as this system says."""
    import psutil  # costs a start of `sonde` 30 ms

    types = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    at = path.resolve()
    found = next((types[one] for one in (at, *at.parents) if one in types), "")
    return found.startswith(_NETWORK)


def temporary_in(directory: Path) -> Path:
    """An unused path in `directory` for an unfinished file."""
    return directory / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(6)}"


def sync(path: Path) -> None:
    """Flush a file's content, or a directory's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, each for its owner alone and flushed to the disk."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        sync(one.parent)


def commit(temporary: Path, target: Path, permit: Permit = permit_always) -> None:
    """Give an unfinished file or directory its name, if `permit` lets it.

    The unfinished file is there before `permit` is asked, and a process that takes a lock over removes such files after
    it took the lock. A holder that stands still between `permit` and the rename therefore finds nothing to rename.
    """
    permit()
    os.replace(temporary, target)  # noqa: PTH105  # the step that tests make fail


def replace_file(path: Path, content: bytes, permit: Permit = permit_always, *, mode: int = 0o666) -> None:
    """Replace a file's content in one step: readers see the old or the new content.

    `permit` is as in `commit`. `mode` are the permissions, from which the umask takes.
    """
    temporary = temporary_in(path.parent)
    try:
        temporary.touch(mode)
        temporary.write_bytes(content)
        sync(temporary)
        commit(temporary, path, permit)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def remove_temporary(directory: Path) -> None:
    """Remove unfinished files. The caller must hold the directory's lock."""
    for path in directory.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            # Renamed first: a process that stood still may go on writing to it.
            removed = temporary_in(directory)
            path.rename(removed)
            shutil.rmtree(removed)
        else:
            path.unlink(missing_ok=True)


def sha256_of(*paths: Path) -> str:
    """The SHA-256 of one file's bytes, or of several files' in order, as hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def read_json(path: Path, kind: type[JsonT]) -> JsonT:
    """The JSON `dict` or `list` in a file, empty without a file. Raises ValueError."""
    if not path.is_file():
        return kind()
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, kind):
        got = type(content).__name__
        raise ValueError(f"{path.name}: expected a JSON {kind.__name__}, got {got}")  # noqa: TRY004  # as for no JSON
    return content


_ERRNO = {errno.ENOSPC, errno.EDQUOT}
# The second occurs where the shared-memory file beside a WAL cannot grow.
_SQLITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
# safetensors and tokenizers raise errors of their own, with Rust's text of the system error.
_RUST = tuple(f"(os error {number})" for number in sorted(_ERRNO))


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk caused an error."""
    if isinstance(error, OSError):
        return error.errno in _ERRNO
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in _SQLITE
    return error is not None and any(text in str(error) for text in _RUST)
