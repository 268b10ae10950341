"""What a full disk looks like, whoever ran into it."""

from __future__ import annotations

import errno
import sqlite3

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
