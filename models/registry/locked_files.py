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
    """Keep out who else locks this file."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def content_of(path: Path) -> bytes:
    """What a file holds; nothing where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none. Raises RegistryError."""
    content = content_of(path)
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
    """The JSON objects of the whole lines of a file. Raises RegistryError."""
    try:
        return [json.loads(line) for line in content_of(path).splitlines(keepends=True) if line.endswith(b"\n")]
    except ValueError as error:
        raise RegistryError(f"{path} has a line that is not JSON: {error}") from error
