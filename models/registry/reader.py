"""What a registry holds, read without a lock: names, versions, pointers, owners, bound rows and aliases."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ArtifactError, NotRegistered
from models.registry.aliases import Aliases
from models.registry.artifact import Manifest, read_manifest
from models.registry.fenced_lock import LEASE_S
from models.registry.held_out import HeldOut
from models.registry.name_files import NameFiles
from models.registry.names import directory_of, name_of
from models.registry.ownership import Ownership
from models.registry.pointer_history import Move

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pointer:
    """The version in service, the one before, and the number of moves."""

    version: int
    generation: int
    previous: int | None


class RegistryReader:
    """The trained models below a directory, as they are now. Each answer is whole while others change a name."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], float] = time.time,
        lease_s: float = LEASE_S,
        max_wait_s: float | None = None,
    ) -> None:
        self._root = root
        self._clock = clock
        self._lease_s = lease_s
        self._max_wait_s = max_wait_s
        self._aliases = Aliases(root, lease_s=lease_s, max_wait_s=max_wait_s)

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        return [name for name in self._names() if self.versions(name)]

    def versions(self, name: str) -> list[int]:
        """The versions of a name, ascending; empty for an unknown name. Raises BadName."""
        return self._files(name).versions.numbers()

    def is_deleted(self, name: str, version: int) -> bool:
        """Whether a version was deleted here. Files that are lost otherwise do not count."""
        return self._files(name).versions.is_deleted(version)

    def path(self, name: str, version: int) -> Path:
        """The directory of a version. Raises NotRegistered."""
        versions = self.versions(name)
        if version not in versions:
            present = ", ".join(f"v{number}" for number in versions) or "none"
            raise NotRegistered(f"{name} has no version {version}; there is: {present}", param="model")
        return self._files(name).versions.path(version)

    def manifest(self, name: str, version: int) -> Manifest:
        """A version's manifest, without verifying files. Raises NotRegistered, ArtifactError."""
        return read_manifest(self.path(name, version))

    def published(self, name: str, job: str) -> int | None:
        """The version that a job has published, or None; repeated publications ask this first."""
        return next((version for version in self.versions(name) if self._job_of(name, version) == job), None)

    def last_move(self, name: str) -> Move:
        """The last move of a name's pointer; one of generation 0 when there was none. Raises RegistryDamaged."""
        return self._files(name).history.last()

    def current(self, name: str) -> Pointer | None:
        """The version in service, or None. Raises RegistryDamaged, as all do that read the pointer."""
        last = self.last_move(name)
        return None if last.version is None else Pointer(last.version, last.generation, last.previous)

    def generation(self, name: str) -> int:
        """The number of moves of a name's pointer, which `promote` can check."""
        return self.last_move(name).generation

    def previous(self, name: str) -> int | None:
        """The version that a rollback would put in service, also for a name out of service."""
        return self.last_move(name).previous

    def ledger(self, name: str) -> list[dict[str, Any]]:
        """All publications, promotions, rollbacks, withdrawals and deletions, oldest first."""
        return self._files(name).history.ledger()

    def aliases(self, *, known: bool = False) -> dict[str, str]:
        """Target by alias. Raises RegistryDamaged, also for a lost file where aliases are `known`."""
        return self._aliases.all(known=known)

    def stamp(self) -> object:
        """A value that differs after any change of pointers, aliases or versions; cheap to poll."""
        names = self._names()
        return [(name, self._files(name).history.stamp(), self.versions(name)) for name in names], self._aliases.stamp()

    def ownership(self, name: str) -> Ownership | None:
        """The owner of a name and its grants; None for a name from before names had owners."""
        return self._files(name).owner.read()

    def held_out(self, name: str) -> HeldOut | None:
        """The rows bound to a name, or None. Raises RegistryError."""
        return self._files(name).held_out.read()

    def _job_of(self, name: str, version: int) -> str | None:
        """The job in a manifest; None for an unreadable one, which must not block later ones."""
        try:
            return self.manifest(name, version).job
        except ArtifactError as error:
            log.warning("skipped a version: %s", error.message, extra={"model": name})
            return None

    def _directory(self, name: str) -> Path:
        return self._root / directory_of(name)

    def _files(self, name: str) -> NameFiles:
        return NameFiles(self._directory(name), self._clock)

    def _names(self) -> list[str]:
        """Every name that was ever published, sorted."""
        if not self._root.is_dir():
            return []
        folders = [path.name for path in self._root.iterdir() if path.is_dir() and not path.is_symlink()]
        return sorted(name for folder in folders if (name := name_of(folder)))
