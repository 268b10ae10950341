"""Short names for trained models."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from models.errors import RegistryConflict, RegistryDamaged
from models.filesystem import Permit, make_directory, remove_temporary, replace_file
from models.registry.fenced_lock import LEASE_S, FencedLock
from models.registry.locked_files import read_object, shown, stamp

log = logging.getLogger(__name__)


class Aliases:
    """`aliases.json` of a registry: for each alias a name, or one version of it."""

    def __init__(self, root: Path, *, lease_s: float = LEASE_S, max_wait_s: float | None = None) -> None:
        self._root = root
        self._lock = FencedLock(root / ".aliases.lock", lease_s=lease_s, max_wait_s=max_wait_s)
        self._path = root / "aliases.json"

    def all(self, *, known: bool = False) -> dict[str, str]:
        """Target by alias. Raises RegistryDamaged, also for a lost file where aliases are `known`."""
        read = read_object(self._path)
        if read is None and known:
            raise RegistryDamaged(f"{shown(self._path)} is gone")
        return {str(alias): str(target) for alias, target in (read or {}).items()}

    def all_or(self, served: Mapping[str, str]) -> dict[str, str]:
        """Target by alias; those that are served where the file is damaged or lost."""
        try:
            return self.all(known=bool(served))
        except RegistryDamaged as error:
            log.warning("%s; restored the %d aliases in service", error.message, len(served))
            return dict(served)

    def stamp(self) -> object:
        """A value that differs after every change."""
        return stamp(self._path)

    def refuse_if_named(self, target: str) -> None:
        """Raise RegistryConflict when an alias points to exactly this target."""
        if named := [alias for alias, its_target in self.all().items() if its_target == target]:
            raise RegistryConflict(f"{target} is what alias {named[0]!r} means: remove the alias first", param="model")

    def write(self, aliases: dict[str, str], permit: Permit) -> None:
        """Replace all aliases. `permit` is what `locked` gave."""
        replace_file(self._path, json.dumps(aliases, indent=1, sort_keys=True).encode(), permit)

    @contextmanager
    def locked(self) -> Iterator[Permit]:
        """Keep other threads and processes from changing aliases meanwhile."""
        make_directory(self._root)
        with self._lock.hold() as permit:
            remove_temporary(self._root)
            yield permit
