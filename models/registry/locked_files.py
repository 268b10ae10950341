"""Small files that several processes read and change."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.errors import RegistryError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold this file's lock; other threads and processes wait for it."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_or_empty(path: Path) -> bytes:
    """A file's content; empty when there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None when there is no file. Raises RegistryError."""
    content = read_or_empty(path)
    if not content:
        return None
    try:
        read = json.loads(content)
    except ValueError as error:
        raise RegistryError(f"{path} is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise RegistryError(f"{path}: expected a JSON object, got {type(read).__name__}")
    return read


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file's complete lines. Raises RegistryError."""
    try:
        return [json.loads(line) for line in read_or_empty(path).splitlines(keepends=True) if line.endswith(b"\n")]
    except ValueError as error:
        raise RegistryError(f"{path} has a line that is not JSON: {error}") from error
