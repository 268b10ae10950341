"""The owner of a name: the key whose jobs may promote its versions, and the keys to which an admin granted the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from models.errors import RegistryError
from models.filesystem import Permit, permit_always, replace_file
from models.registry.locked_files import read_object


@dataclass(frozen=True, slots=True)
class Ownership:
    """The ids of the key that owns a name, None for a name without an owner, and of keys that were granted it."""

    owner: str | None = None
    grants: tuple[str, ...] = ()

    def includes(self, key: str) -> bool:
        """Whether a key owns the name or was granted it."""
        return key == self.owner or key in self.grants


class OwnerFile:
    """`owner.json` of a name; names from before version 0.2.0 have none. Writers must hold the name's lock."""

    def __init__(self, directory: Path, permit: Permit = permit_always) -> None:
        self._permit = permit
        self._path = directory / "owner.json"

    def read(self) -> Ownership | None:
        """The owner; None without a file. Raises RegistryError."""
        read = read_object(self._path)
        if read is None:
            return None
        owner, grants = read.get("owner"), read.get("grants")
        if not isinstance(owner, str | None) or not isinstance(grants, list):
            raise RegistryError(f"{self._path} has no owner and grants of ours: set the owner again")
        return Ownership(owner, tuple(map(str, grants)))

    def write(self, ownership: Ownership) -> None:
        """Replace the owner and the grants."""
        replace_file(self._path, json.dumps(asdict(ownership)).encode(), self._permit)
