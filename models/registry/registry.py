"""Trained models by name and version: published once, promoted by moving a pointer, rolled back by moving it again.

<root>/<name, ":" as "--">/versions/<n>/     an artifact, see `models.registry.artifact`
                           versions/<n>.deleted   that number is used up
                           current.json      which version serves, and the record of how that came about
                           ledger.jsonl      all such records
<root>/aliases.json
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ArtifactError, NotRegistered, RegistryConflict, RegistryError
from models.filesystem import make_directory
from models.registry.aliases import Aliases
from models.registry.artifact import Manifest, publish, read_manifest, verify
from models.registry.history import Action, History
from models.registry.locked_files import locked
from models.registry.names import check_alias, directory_of, name_of, parse_name
from models.registry.versions import Versions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version serves, which served before, and how often that has changed."""

    version: int
    generation: int
    previous: int | None


class Registry:
    """The trained models below a directory. Safe between threads and processes of machines that share it (`flock`).

    Whatever changes does so in one step, so that a power cut leaves the old or the new; see `models.filesystem`.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock
        self._aliases = Aliases(root)

    # --- reading
    # --------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Every name that has a version, sorted."""
        return [name for name in self._names() if self.versions(name)]

    def versions(self, name: str) -> list[int]:
        """The versions of a name, ascending; none for a name that is not there. Raises BadName."""
        return self._versions(name).numbers()

    def path(self, name: str, version: int) -> Path:
        """The directory of a version. Raises NotRegistered."""
        if version not in self.versions(name):
            there = ", ".join(f"v{one}" for one in self.versions(name)) or "none"
            raise NotRegistered(f"{name} has no version {version}; there is: {there}", param="model")
        return self._versions(name).path(version)

    def manifest(self, name: str, version: int) -> Manifest:
        """The manifest of a version, its files not looked at. Raises NotRegistered and ArtifactError."""
        return read_manifest(self.path(name, version))

    def published(self, name: str, job: str) -> int | None:
        """The version that a job has published, if it has: what a publication that may be a repetition asks first."""
        return next((version for version in self.versions(name) if self._made_by(name, version) == job), None)

    def current(self, name: str) -> Pointer | None:
        """Which version serves; None when none does."""
        last = self._history(name).last()
        return None if last.version is None else Pointer(last.version, last.generation, last.previous)

    def generation(self, name: str) -> int:
        """How often the pointer of a name was moved; what `promote` may be told to expect."""
        return self._history(name).last().generation

    def previous(self, name: str) -> int | None:
        """What a rollback leads to; also where a name is out of service."""
        return self._history(name).last().previous

    def ledger(self, name: str) -> list[dict[str, Any]]:
        """Who promoted, rolled back, withdrew, published and deleted what, when and why, oldest first."""
        return self._history(name).ledger()

    def aliases(self) -> dict[str, str]:
        """Target by alias."""
        return self._aliases.all()

    def stamp(self) -> object:
        """A value that differs after any pointer, alias or set of versions has changed, cheap enough to ask for
        every second.
        """
        names = self._names()
        return [(name, self._history(name).stamp(), self.versions(name)) for name in names], self._aliases.stamp()

    # --- writing
    # --------------------------------------------------------------------------------------------------------

    def publish(self, name: str, staging: Path, make: Callable[[int], Manifest]) -> int:
        """Make a version of the files in `staging`, described by `make(its number)`; return the number.

        Numbers are never used again. Raises ArtifactError when a file may not be in an artifact.
        """
        make_directory(self._directory(name) / "versions")
        versions = self._versions(name)
        with self._alone(name) as history:
            versions.remove_deleted()
            version = versions.next()
            manifest = make(version)
            if (manifest.name, manifest.version) != (name, version):
                raise RegistryError(
                    f"the manifest is of {manifest.name}:v{manifest.version}, expected {name}:v{version}"
                )
            publish(staging, versions.path(version), manifest)
            history.log("publish", version, manifest.job)
            return version

    def promote(self, name: str, version: int, *, by: str, why: str, expected: int | None = None) -> Pointer:
        """Put a version in service; one that serves already stays, without a new generation.

        `expected` is the generation that the decision was made on. Raises RegistryConflict when there has been
        another since, NotRegistered, and ArtifactError when the files are not what was published.
        """
        return self._serve(name, version, "promote", by, why, expected)

    def rollback(self, name: str, *, by: str, why: str) -> Pointer:
        """Put the version back in service that served before. Raises RegistryConflict when there is none."""
        last = self._history(name).last()
        if last.previous is None or last.previous not in self.versions(name):
            was = "no version served before" if last.previous is None else f"version {last.previous} was deleted"
            raise RegistryConflict(f"{name} cannot be rolled back: {was}", param="model")
        if last.previous == last.version:  # as earlier versions of this code wrote after a withdrawal
            said = (
                f"{name} cannot be rolled back: version {last.version} serves already; promote the version that "
                f"you want"
            )
            raise RegistryConflict(said, param="model")
        return self._serve(name, last.previous, "rollback", by, why, last.generation)

    def withdraw(self, name: str, *, by: str, why: str) -> None:
        """Take a name out of service; `promote` or `rollback` puts it back. Raises RegistryConflict when it is not
        in service.
        """
        with self._alone(name) as history:
            if history.last().version is None:
                raise RegistryConflict(f"{name} is not in service", param="model")
            history.move(None, "withdraw", by=by, why=why)

    def delete(self, name: str, version: int, *, by: str = "") -> None:
        """Delete a version for good.

        Raises RegistryConflict for the one in service, for one that an alias names, and for the last one of a name
        that an alias means.
        """
        with self._alone(name) as history, self._aliases.alone():
            self.path(name, version)
            self._delete(name, [version], history, by)

    def delete_all(self, name: str, *, by: str = "") -> None:
        """Delete every version of a name. Raises RegistryConflict while one is in service or an alias names it."""
        with self._alone(name) as history, self._aliases.alone():
            self._delete(name, self.versions(name), history, by)

    def set_alias(self, alias: str, target: str) -> None:
        """Have `alias` mean a name, or one version of it. Raises BadName and NotRegistered."""
        check_alias(alias)
        name, version = parse_name(target)
        with self._aliases.alone():
            self._require(name, version)
            self._aliases.write({**self.aliases(), alias: target})

    def remove_alias(self, alias: str) -> None:
        """Forget an alias. Raises NotRegistered when there is none."""
        with self._aliases.alone():
            aliases = self.aliases()
            if alias not in aliases:
                raise NotRegistered(f"there is no alias {alias[:300]!r}", param="alias")
            self._aliases.write({key: target for key, target in aliases.items() if key != alias})

    # --- steps
    # ----------------------------------------------------------------------------------------------------------

    def _serve(self, name: str, version: int, action: Action, by: str, why: str, expected: int | None) -> Pointer:
        """Have the pointer at a version whose files are whole, unless it has moved since the generation `expected`."""
        verify(self.path(name, version))
        with self._alone(name) as history:
            last = history.last()
            if expected not in (None, last.generation):
                said = f"{name} is at generation {last.generation}, expected {expected}: somebody else was faster"
                raise RegistryConflict(said, param="model")
            self.path(name, version)  # it may have been deleted since
            if last.version != version:
                last = history.move(version, action, by=by, why=why)
            return Pointer(version, last.generation, last.previous)

    def _made_by(self, name: str, version: int) -> str | None:
        """The job that a version says it is of; None where it says nothing that can be read, which shall not stop
        its successors.
        """
        try:
            return self.manifest(name, version).job
        except ArtifactError as error:
            log.warning("a version is passed over: %s", error.message, extra={"model": name})
            return None

    def _delete(self, name: str, doomed: list[int], history: History, by: str) -> None:
        """The mark is what deletes; all are looked at before the first."""
        serving = history.last().version
        if doomed == self.versions(name):
            self._aliases.refuse_if_named(name)
        for version in doomed:
            if version == serving:
                raise RegistryConflict(
                    f"{name}:v{version} is in service: promote another or withdraw it first", param="model"
                )
            self._aliases.refuse_if_named(f"{name}:v{version}")
        versions = self._versions(name)
        for version in doomed:
            versions.mark_deleted(version)
            versions.remove(version)  # first, since on a full disk there is room for a line only then
            history.log("delete", version, by)

    def _require(self, name: str, version: int | None) -> None:
        if version is not None:
            self.path(name, version)
        elif not self.versions(name):
            raise NotRegistered(f"there is no trained model {name}", param="model")

    # --- places
    # ---------------------------------------------------------------------------------------------------------

    def _directory(self, name: str) -> Path:
        return self._root / directory_of(name)

    def _versions(self, name: str) -> Versions:
        return Versions(self._directory(name) / "versions")

    def _history(self, name: str) -> History:
        return History(self._directory(name), self._clock)

    def _names(self) -> list[str]:
        """Every name that was ever published, sorted."""
        if not self._root.is_dir():
            return []
        there = [path.name for path in self._root.iterdir() if path.is_dir() and not path.is_symlink()]
        return sorted(name for directory in there if (name := name_of(directory)))

    @contextmanager
    def _alone(self, name: str) -> Iterator[History]:
        """Keep others from changing this name meanwhile. Raises NotRegistered for one that was never published."""
        directory = self._directory(name)
        if not directory.is_dir():
            raise NotRegistered(f"there is no trained model {name}", param="model")
        with locked(directory / ".lock"):
            yield self._history(name)
