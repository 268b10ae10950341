"""Small files that several processes read and change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.errors import RegistryDamaged


def read_if_there(path: Path) -> bytes | None:
    """A file's content; None when there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def stamp(path: Path) -> object:
    """A value that differs after every change of a file, also while it cannot be read."""
    try:
        return read_if_there(path)
    except OSError as error:
        return repr(error)


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None when there is no file. Raises RegistryDamaged, also for an empty file."""
    content = read_if_there(path)
    if content is None:
        return None
    if not content:
        raise RegistryDamaged(f"{shown(path)} is empty")
    try:
        read = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RegistryDamaged(f"{shown(path)} is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise RegistryDamaged(f"{shown(path)}: expected a JSON object, got {type(read).__name__}")
    return read


def read_lines(path: Path, *, skip_damaged: bool = False) -> list[dict[str, Any]]:
    """The JSON objects of a file's complete lines. Raises RegistryDamaged unless damaged lines are skipped.

    A last line without its end is normal: a power cut leaves one.
    """
    lines = (read_if_there(path) or b"").splitlines(keepends=True)
    found = ((number, _parse_or_none(line)) for number, line in enumerate(lines, 1) if line.endswith(b"\n"))
    objects = []
    for number, read in found:
        if read is not None:
            objects.append(read)
        elif not skip_damaged:
            raise RegistryDamaged(f"line {number} of {shown(path)} is no JSON object: correct it or remove it")
    return objects


def shown(path: Path) -> str:
    """A path as messages name it, without the directories of this host."""
    return f"{path.parent.name}/{path.name}"


def _parse_or_none(line: bytes) -> dict[str, Any] | None:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None
