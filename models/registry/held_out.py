"""The held-out rows bound to a name, which judge every version: a copy of a file, and how to read it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from models.errors import RegistryError
from models.filesystem import (
    Permit,
    commit,
    make_directory,
    permit_always,
    remove_temporary,
    replace_file,
    sha256_of,
    sync,
    temporary_in,
)
from models.registry.locked_files import read_object
from models.validation_messages import describe_fault


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A file of rows, with its SHA-256, the key that bound it and when.

    `file` is the id of the upload, `format` its ending. `task`, `columns` and `hyperparameters` say how to read it.
    """

    file: str
    format: str
    sha256: str
    rows: int
    by: str
    at: int
    task: str
    columns: Mapping[str, str]
    hyperparameters: Mapping[str, Any]


_HELD_OUT = TypeAdapter(HeldOut)


class HeldOutRows:
    """`held_out.json` of a name, and the copied file below `held_out/`.

    Writers, and readers of the copy, must hold the name's lock.
    """

    def __init__(self, directory: Path, permit: Permit = permit_always) -> None:
        self._permit = permit
        self._record = directory / "held_out.json"
        self._files = directory / "held_out"

    def read(self) -> HeldOut | None:
        """What is bound; None without a binding. Raises RegistryError."""
        read = read_object(self._record)
        if not read:
            return None
        try:
            found: HeldOut = _HELD_OUT.validate_python(read)
        except ValidationError as error:
            fault = describe_fault(dict(error.errors()[0]))
            raise RegistryError(f"{self._record} is no binding of ours: {fault}") from error
        return found

    def bind(self, source: Path, held_out: HeldOut) -> None:
        """Copy `source` and have it judge. Raises RegistryError where it is not the file that was checked."""
        make_directory(self._files)
        remove_temporary(self._files)
        copy = temporary_in(self._files)
        try:
            shutil.copyfile(source, copy)
            _require_digest(copy, held_out)
            sync(copy)
            commit(copy, self._path(held_out), self._permit)
        finally:
            copy.unlink(missing_ok=True)
        sync(self._files)
        replace_file(self._record, json.dumps(asdict(held_out)).encode(), self._permit)
        self._remove_others(self._path(held_out))

    def copy_to(self, directory: Path) -> tuple[HeldOut, Path] | None:
        """What is bound, and a copy of its file in `directory`; None without a binding.

        Raises RegistryError where the file is gone or was changed.
        """
        held_out = self.read()
        if held_out is None:
            return None
        copy = directory / f"bound.{held_out.format}"
        try:
            shutil.copyfile(self._path(held_out), copy)
        except FileNotFoundError as error:
            raise RegistryError(f"the rows bound to this name ({held_out.file}) are gone: bind them again") from error
        _require_digest(copy, held_out)
        return held_out, copy

    def remove(self) -> None:
        """Remove the binding and its file."""
        replace_file(self._record, b"{}", self._permit)
        self._remove_others(None)

    def _path(self, held_out: HeldOut) -> Path:
        return self._files / f"{held_out.sha256}.{held_out.format}"

    def _remove_others(self, kept: Path | None) -> None:
        others = [path for path in self._files.glob("*") if path != kept]
        self._permit()
        for path in others:
            path.unlink(missing_ok=True)


def _require_digest(copy: Path, held_out: HeldOut) -> None:
    digest = sha256_of(copy)
    if digest != held_out.sha256:
        raise RegistryError(
            f"the rows of {held_out.file} have SHA-256 {digest}, expected {held_out.sha256}: bind them again"
        )
