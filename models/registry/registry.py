"""Trained models by name and version: published once, promoted by a pointer.

<root>/<name, ":" as "--">/versions/<n>/          an artifact, see `models.registry.artifact`
                           versions/<n>.deleted   the mark of a deleted version
                           current.json           the version in service, and the record of its last move
                           ledger.jsonl           all records
                           owner.json             the key that owns the name, and the keys that were granted it
                           held_out.json          the rows that judge every version, copied to held_out/
<root>/aliases.json
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from models.errors import NotRegistered, RegistryConflict, RegistryError
from models.filesystem import Permit, make_directory, permit_always
from models.registry.artifact import Manifest, publish, verify
from models.registry.fenced_lock import FencedLock
from models.registry.held_out import HeldOut
from models.registry.name_files import NameFiles
from models.registry.names import check_alias, parse_name
from models.registry.ownership import Ownership
from models.registry.pointer_history import Action, Change
from models.registry.reader import Pointer, RegistryReader


class Registry(RegistryReader):
    """The trained models below a directory.

    Safe between threads and processes of machines that share it, also where one of them stands still for good: see
    `FencedLock`. A change waits for others for as long as they live, or for `max_wait_s` and raises RegistryBusy.

    Every change is one step, so that a power cut leaves the old or the new state; see `models.filesystem`.
    """

    def publish(self, name: str, staging: Path, make: Callable[[int], Manifest]) -> int:
        """Make a version of the files in `staging`, with the manifest `make(number)`.

        Returns the number. Numbers are never reused. A name without versions and without an owner becomes that of the
        manifest's owner. Raises ArtifactError when a file is not allowed in an artifact.
        """
        make_directory(self._directory(name) / "versions")
        with self._locked(name) as files:
            files.versions.remove_deleted()
            version = files.versions.next()
            manifest = make(version)
            if (manifest.name, manifest.version) != (name, version):
                raise RegistryError(
                    f"the manifest is of {manifest.name}:v{manifest.version}, expected {name}:v{version}"
                )
            if manifest.owner is not None and not files.versions.numbers():
                self._claim_if_unowned(files, manifest.owner)
            publish(staging, files.versions.path(version), manifest, files.permit)
            files.history.log("publish", version, manifest.job, owner=manifest.owner)
            return version

    def promote(
        self,
        name: str,
        version: int,
        *,
        by: str,
        why: str,
        expected: int | None = None,
        served: int = 0,
        permit: Permit = permit_always,
    ) -> Pointer:
        """Put a version in service. Promoting the version in service changes nothing.

        It restores a damaged pointer from the ledger first. `expected` is the generation that the decision was based
        on. `served` is a generation that is in service: where the files are older, the new one is above it all the
        same. Raises RegistryConflict when the generation is not the expected one, NotRegistered, and ArtifactError
        when the files differ from the published ones.
        """
        return self._point_to(name, version, "promote", by, why, expected, served, permit)

    def rollback(self, name: str, *, by: str, why: str, served: int = 0) -> Pointer:
        """Put the previous version back in service. Raises RegistryConflict when there is none."""
        last = self.last_move(name)
        reason = None
        if last.previous is None:
            reason = "no version served before"
        elif last.previous not in self.versions(name):
            reason = f"version {last.previous} was deleted"
        elif last.previous == last.version:  # as earlier versions of this code wrote after a withdrawal
            reason = f"version {last.version} serves already; promote the version that you want"
        if last.previous is None or reason:
            raise RegistryConflict(f"{name} cannot be rolled back: {reason}", param="model")
        return self._point_to(name, last.previous, "rollback", by, why, last.generation, served)

    def withdraw(self, name: str, *, by: str, why: str, served: int = 0) -> None:
        """Take a name out of service; `promote` or `rollback` puts it back.

        Raises RegistryConflict when it is not in service.
        """
        with self._locked(name) as files:
            if files.history.last().version is None:
                raise RegistryConflict(f"{name} is not in service", param="model")
            files.history.move(None, "withdraw", by=by, why=why, served=served)

    def delete(self, name: str, version: int, *, by: str = "", served: int = 0) -> None:
        """Delete a version for good. The only version is withdrawn first; `served` is as in `promote`.

        Raises RegistryConflict for the version in service beside others, for one that an alias points to, and for the
        last version of a name that an alias points to.
        """
        with self._locked(name) as files, self._aliases.locked():
            self.path(name, version)
            self._delete_versions(name, [version], files, by, served)

    def delete_all(self, name: str, *, by: str = "", served: int = 0) -> None:
        """Delete every version. Raises RegistryConflict while one of several is in service, or one has an alias."""
        with self._locked(name) as files, self._aliases.locked():
            self._delete_versions(name, self.versions(name), files, by, served)

    def set_owner(self, name: str, owner: str, *, by: str) -> Ownership:
        """Give a name to a key; the grants of the owner before end. Raises NotRegistered."""
        with self._locked(name) as files:
            return self._set_ownership(files, Ownership(owner), "set_owner", by, owner)

    def grant(self, name: str, key: str, *, by: str) -> Ownership:
        """Let a key's jobs promote versions of a name. Raises NotRegistered."""
        with self._locked(name) as files:
            now = files.owner.read() or Ownership()
            if key in now.grants:
                return now
            return self._set_ownership(files, replace(now, grants=(*now.grants, key)), "grant", by, key)

    def remove_owner(self, name: str, *, by: str) -> Ownership:
        """Leave a name without an owner and grants. Raises NotRegistered."""
        with self._locked(name) as files:
            return self._set_ownership(files, Ownership(), "remove_owner", by, "")

    def revoke_grant(self, name: str, key: str, *, by: str) -> Ownership:
        """Take a grant back. Raises NotRegistered, also for a key without a grant."""
        with self._locked(name) as files:
            now = files.owner.read() or Ownership()
            if key not in now.grants:
                raise NotRegistered(f"{name} was not granted to {key[:100]!r}", param="key")
            left = tuple(granted for granted in now.grants if granted != key)
            return self._set_ownership(files, replace(now, grants=left), "revoke_grant", by, key)

    def bind_held_out(self, name: str, source: Path, held_out: HeldOut, *, permit: Permit = permit_always) -> None:
        """Copy a file whose rows judge every later version of a name. Raises NotRegistered and RegistryError."""
        with self._locked(name) as files:
            permit()
            files.held_out.bind(source, held_out)
            files.history.log("bind_held_out", None, held_out.by, why=held_out.file)

    def copy_held_out(self, name: str, directory: Path) -> tuple[HeldOut, Path] | None:
        """The rows bound to a name and a copy of their file in `directory`, or None. Raises RegistryError."""
        if self.held_out(name) is None:
            return None
        with self._locked(name) as files:
            return files.held_out.copy_to(directory)

    def unbind_held_out(self, name: str, *, by: str, permit: Permit = permit_always) -> None:
        """Remove the rows bound to a name. Raises NotRegistered when there are none."""
        with self._locked(name) as files:
            permit()
            held_out = files.held_out.read()
            if held_out is None:
                raise NotRegistered(f"no rows are bound to {name}", param="model")
            files.held_out.remove()
            files.history.log("unbind_held_out", None, by, why=held_out.file)

    def set_alias(self, alias: str, target: str, *, served: Mapping[str, str] | None = None) -> None:
        """Point `alias` to a name, or to one version of it. Raises BadName and NotRegistered.

        Where the file of aliases is damaged or lost, it is made anew from those that are `served`.
        """
        check_alias(alias)
        name, version = parse_name(target)
        self._require(name, version)  # before the lock, which would make a directory that is lost
        with self._aliases.locked() as permit:
            self._require(name, version)
            self._aliases.write({**self._aliases.all_or(served or {}), alias: target}, permit)

    def remove_alias(self, alias: str) -> None:
        """Remove an alias. Raises NotRegistered when there is none."""
        self._require_alias(alias)
        with self._aliases.locked() as permit:
            aliases = self._require_alias(alias)
            self._aliases.write({key: target for key, target in aliases.items() if key != alias}, permit)

    def _point_to(
        self,
        name: str,
        version: int,
        action: Action,
        by: str,
        why: str,
        expected: int | None,
        served: int,
        permit: Permit = permit_always,
    ) -> Pointer:
        """Verify a version and put it in service, unless another move came after `expected`."""
        owner = verify(self.path(name, version)).owner
        with self._locked(name) as files:
            files.history.repair()
            last = files.history.last()
            if expected not in (None, last.generation):
                message = f"{name} is at generation {last.generation}, expected {expected}: another change came first"
                raise RegistryConflict(message, param="model")
            self.path(name, version)  # raises if it was deleted meanwhile
            permit()
            if last.version != version or last.generation < served:
                last = files.history.move(version, action, by=by, why=why, owner=owner, served=served)
            return Pointer(version, last.generation, last.previous)

    def _claim_if_unowned(self, files: NameFiles, owner: str) -> None:
        """Give a name that has no owner to the key that publishes the first version; the ledger's line says so."""
        now = files.owner.read() or Ownership()
        if now.owner is None:
            files.owner.write(replace(now, owner=owner))

    def _set_ownership(self, files: NameFiles, ownership: Ownership, change: Change, by: str, key: str) -> Ownership:
        files.owner.write(ownership)
        files.history.log(change, None, by, why=key)
        return ownership

    def _delete_versions(self, name: str, doomed: list[int], files: NameFiles, by: str, served: int) -> None:
        """Check all versions, then mark each as deleted and remove its files."""
        serving = files.history.last().version
        alone = self.versions(name) == [serving]
        if doomed == self.versions(name):
            self._aliases.refuse_if_named(name)
        for version in doomed:
            if version == serving and not alone:
                raise RegistryConflict(
                    f"{name}:v{version} is in service: promote another or withdraw it first", param="model"
                )
            self._aliases.refuse_if_named(f"{name}:v{version}")
        if alone:
            files.history.move(None, "withdraw", by=by, why="deleted", served=served)
        for version in doomed:
            files.versions.mark_deleted(version)
            files.versions.remove(version)  # before the ledger: a full disk has no room for its line until then
            files.history.log("delete", version, by)

    def _require(self, name: str, version: int | None) -> None:
        """Raise NotRegistered unless the version, or any version of the name, exists."""
        if version is not None:
            self.path(name, version)
        elif not self.versions(name):
            raise NotRegistered(f"there is no trained model {name}", param="model")

    def _require_alias(self, alias: str) -> dict[str, str]:
        """All aliases. Raises NotRegistered unless `alias` is one of them."""
        aliases = self.aliases()
        if alias not in aliases:
            raise NotRegistered(f"there is no alias {alias[:300]!r}", param="alias")
        return aliases

    @contextmanager
    def _locked(self, name: str) -> Iterator[NameFiles]:
        """Hold the name's lock. Raises RegistryBusy, and NotRegistered for a name that was never published."""
        directory = self._directory(name)
        if not directory.is_dir():
            raise NotRegistered(f"there is no trained model {name}", param="model")
        lock = FencedLock(directory / ".lock", lease_s=self._lease_s, max_wait_s=self._max_wait_s)
        with lock.hold() as permit:
            files = NameFiles(directory, self._clock, permit)
            files.remove_unfinished()
            yield files
