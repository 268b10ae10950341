"""The versions of one name: directories whose numbers are never reused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from models.filesystem import Permit, permit_always, remove_temporary, replace_file

_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_DELETED = ".deleted"


class Versions:
    """The artifacts `<n>/` below a directory, and the marks `<n>.deleted` of deleted ones.

    Writers must hold the name's lock.
    """

    def __init__(self, directory: Path, permit: Permit = permit_always) -> None:
        self._permit = permit
        self._directory = directory

    def numbers(self) -> list[int]:
        """The existing versions, ascending."""
        present, deleted = self._scan()
        return sorted(present - deleted)

    def is_deleted(self, number: int) -> bool:
        """Whether a version is marked as deleted."""
        return (self._directory / f"{number}{_DELETED}").exists()

    def path(self, number: int) -> Path:
        """The directory of a version."""
        return self._directory / str(number)

    def next(self) -> int:
        """A number that was never used."""
        present, deleted = self._scan()
        return 1 + max(present | deleted, default=0)

    def mark_deleted(self, number: int) -> None:
        """Mark a version as deleted, before its files are removed; only the mark counts."""
        replace_file(self._directory / f"{number}{_DELETED}", b"", self._permit)

    def remove(self, number: int) -> None:
        """Remove the files of a deleted version."""
        shutil.rmtree(self.path(number))

    def remove_deleted(self) -> None:
        """Remove files of deleted versions and of unfinished publications."""
        remove_temporary(self._directory)
        present, deleted = self._scan()
        for number in present & deleted:
            self.remove(number)

    def _scan(self) -> tuple[set[int], set[int]]:
        """The numbers that have a directory, and those that are deleted."""
        if not self._directory.is_dir():
            return set(), set()
        names = {path.name for path in self._directory.iterdir() if not path.is_symlink()}
        deleted = {name.removesuffix(_DELETED) for name in names if name.endswith(_DELETED)}
        return _numbers(names), _numbers(deleted)


def _numbers(names: set[str]) -> set[int]:
    return {int(name) for name in names if _NUMBER.fullmatch(name)}
