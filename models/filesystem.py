"""Files that are there after a power cut: written, flushed to the disk, then named. And what a full disk looks like."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sqlite3
from pathlib import Path

# What a power cut may leave behind begins so; nobody reads it, and whoever writes next removes it.
TEMPORARY = ".tmp-"


def temporary_in(directory: Path) -> Path:
    """A path in `directory` that nobody else uses."""
    return directory / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(6)}"


def sync_directory(path: Path) -> None:
    """Have the disk hold what was written to a file, or which names a directory has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """A directory and those above it, each known to the disk."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        sync_directory(one.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Give a file new content in one step: whoever reads it, and whatever is left after a power cut, is the old or
    the new.
    """
    temporary = temporary_in(path.parent)
    try:
        temporary.write_bytes(content)
        sync_directory(temporary)
        os.replace(temporary, path)  # noqa: PTH105  # the step that tests make fail
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def remove_temporary(directory: Path) -> None:
    """Remove what was left behind. Only for who has the directory to themselves."""
    for path in directory.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


_ERRNO = {errno.ENOSPC, errno.EDQUOT}
# The second is said where the file of shared memory beside a WAL cannot grow.
_SQLITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
# safetensors and tokenizers raise errors of their own kinds, with the text that Rust gives the system's.
_RUST = tuple(f"(os error {number})" for number in sorted(_ERRNO))


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in _ERRNO
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in _SQLITE
    return error is not None and any(words in str(error) for words in _RUST)
