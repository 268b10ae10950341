"""The versions of one name: directories whose numbers are never used twice."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from models.filesystem import remove_temporary, sync_directory

_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_DELETED = ".deleted"


class Versions:
    """The artifacts `<n>/` below a directory, and the marks `<n>.deleted` of numbers that are used up.

    Whoever writes has to be alone with the name.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def numbers(self) -> list[int]:
        """Those that are there, ascending."""
        there, deleted = self._found()
        return sorted(there - deleted)

    def path(self, number: int) -> Path:
        """Where a version lies."""
        return self._directory / str(number)

    def next(self) -> int:
        """A number that was never used."""
        there, deleted = self._found()
        return 1 + max(there | deleted, default=0)

    def mark_deleted(self, number: int) -> None:
        """What deletes a version; its files go after it, now or, after a power cut, never to be seen."""
        (self._directory / f"{number}{_DELETED}").touch()
        sync_directory(self._directory)

    def remove(self, number: int) -> None:
        """Remove the files of a deleted version."""
        shutil.rmtree(self.path(number))

    def remove_deleted(self) -> None:
        """Remove the files of deleted versions, and what publications left that a power cut ended."""
        remove_temporary(self._directory)
        there, deleted = self._found()
        for number in there & deleted:
            self.remove(number)

    def _found(self) -> tuple[set[int], set[int]]:
        """The numbers that have a directory, and those that are deleted."""
        if not self._directory.is_dir():
            return set(), set()
        names = {path.name for path in self._directory.iterdir() if not path.is_symlink()}
        deleted = {name.removesuffix(_DELETED) for name in names if name.endswith(_DELETED)}
        return _numbers(names), _numbers(deleted)


def _numbers(names: set[str]) -> set[int]:
    return {int(name) for name in names if _NUMBER.fullmatch(name)}
