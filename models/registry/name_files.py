"""The files of one name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.filesystem import Permit, permit_always, remove_temporary
from models.registry.held_out import HeldOutRows
from models.registry.ownership import OwnerFile
from models.registry.pointer_history import PointerHistory
from models.registry.versions import Versions


class NameFiles:
    """The files of one name. Writers must hold the name's lock; its `permit` is asked right before each change."""

    def __init__(self, directory: Path, clock: Callable[[], float], permit: Permit = permit_always) -> None:
        self._directory = directory
        self.permit = permit
        self.versions = Versions(directory / "versions", permit)
        self.history = PointerHistory(directory, clock, permit)
        self.owner = OwnerFile(directory, permit)
        self.held_out = HeldOutRows(directory, permit)

    def remove_unfinished(self) -> None:
        """Remove what power cuts and holders of the lock that stood still have left."""
        for name in ("", "versions", "held_out"):
            remove_temporary(self._directory / name)
