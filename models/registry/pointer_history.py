"""The history of one name: the version in service, and the ledger of changes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import RegistryError
from models.filesystem import replace_file, sync
from models.registry.locked_files import read_lines, read_object, read_or_empty

log = logging.getLogger(__name__)

Action = Literal["promote", "rollback", "withdraw"]
# Changes that move no pointer.
Change = Literal[
    "publish", "delete", "set_owner", "remove_owner", "grant", "revoke_grant", "bind_held_out", "unbind_held_out"
]


@dataclass(frozen=True, slots=True)
class Move:
    """A move of the pointer: the version in service, the move's number, a rollback's target."""

    version: int | None
    generation: int
    previous: int | None


class PointerHistory:
    """The pointer of a name (`current.json`) and its ledger (`ledger.jsonl`).

    Writers must hold the name's lock.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._current = directory / "current.json"
        self._ledger = directory / "ledger.jsonl"
        self._clock = clock

    def last(self) -> Move:
        """The last move; one of generation 0 when there was none. Raises RegistryError."""
        record = self._record()
        if record is None:
            return Move(None, 0, None)
        return Move(record["version"], record["generation"], record["previous"])

    def ledger(self) -> list[dict[str, Any]]:
        """All entries, oldest first."""
        lines = read_lines(self._ledger)
        return lines + self._unrecorded(lines)

    def stamp(self) -> bytes:
        """A value that differs after every move."""
        return read_or_empty(self._current)

    def move(self, version: int | None, action: Action, *, by: str, why: str, owner: str | None = None) -> Move:
        """Point to another version or to none: first the pointer with its record, then the ledger.

        `owner` owns the version.
        """
        # After a power cut the last record may be missing from the ledger; it is about to be overwritten.
        for line in self._unrecorded(read_lines(self._ledger)):
            self._append(line)
        before = self.last()
        after = Move(version, before.generation + 1, self._rollback_target(before, version))
        record = self._timestamped({"action": action, "version": version, "by": by, "why": why, "owner": owner})
        record |= {"generation": after.generation, "previous": after.previous}
        replace_file(self._current, json.dumps(record).encode())
        try:
            self._append(record)
        # On a full disk the move has happened; its record is in the pointer, and the next move adds it to the ledger.
        except OSError as error:
            log.warning("the ledger is a line behind: %s", error)
        return after

    def log(self, action: Change, version: int | None, by: str, *, why: str = "", owner: str | None = None) -> None:
        """Add an entry for a change that moves no pointer; `owner` owns the version."""
        self._append(self._timestamped({"action": action, "version": version, "by": by, "why": why, "owner": owner}))

    def _rollback_target(self, before: Move, version: int | None) -> int | None:
        """The version that served before `version`.

        Where `version` itself served last and was withdrawn, it is the one before.
        """
        last = before.previous if before.version is None else before.version
        if last != version:
            return last
        earlier = (line for line in reversed(self.ledger()) if line.get("version") == version)
        return next((line["previous"] for line in earlier if line.get("previous", version) != version), None)

    def _record(self) -> dict[str, Any] | None:
        """The record of the last move; None when there was none."""
        read = read_object(self._current)
        if read is not None and not {"version", "generation", "previous"} <= read.keys():
            raise RegistryError(f"{self._current} is no pointer of ours")
        return read

    def _unrecorded(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The last move's record if the ledger lacks it, after a power cut or on a full disk."""
        record = self._record()
        if record is None or any(line.get("generation") == record["generation"] for line in lines):
            return []
        return [record]

    def _timestamped(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {"at": int(self._clock()), **entry}

    def _append(self, entry: dict[str, Any]) -> None:
        """Add a line, after removing half a line that a power cut may have left."""
        with self._ledger.open("ab+") as stream:
            stream.seek(0)
            content = stream.read()
            stream.truncate(content.rfind(b"\n") + 1)
            stream.write(json.dumps(entry).encode() + b"\n")
        sync(self._ledger)
