"""The history of one name: the version in service, and the ledger of changes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import RegistryDamaged
from models.filesystem import Permit, permit_always, replace_file
from models.registry.locked_files import read_if_there, read_lines, read_object, shown, stamp

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


_NO_MOVE: dict[str, Any] = {"version": None, "generation": 0, "previous": None}


class PointerHistory:
    """The pointer of a name (`current.json`) and its ledger (`ledger.jsonl`).

    Writers must hold the name's lock.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time, permit: Permit = permit_always) -> None:
        self._permit = permit
        self._current = directory / "current.json"
        self._ledger = directory / "ledger.jsonl"
        self._clock = clock

    def last(self) -> Move:
        """The last move; one of generation 0 when there was none.

        Raises RegistryDamaged for a pointer that is empty, lost or older than the ledger.
        """
        recorded = self._last_recorded()  # first, because a move writes the pointer before the ledger
        pointer = self._pointer()
        if recorded.generation > pointer.generation:
            damage = "is older than its ledger" if pointer.generation else "is gone"
            raise RegistryDamaged(f"{shown(self._current)} {damage}; {_remedy(recorded)}")
        return pointer

    def repair(self) -> None:
        """Make a damaged pointer that of the ledger's last move, with its generation."""
        try:
            self.last()
        except RegistryDamaged as error:
            record = self._last_move()
            replace_file(self._current, json.dumps(record or _NO_MOVE).encode(), self._permit)
            log.warning("%s; restored as the ledger has it", error.message)

    def ledger(self) -> list[dict[str, Any]]:
        """All entries, oldest first."""
        lines = read_lines(self._ledger)
        return lines + self._unrecorded(lines)

    def stamp(self) -> object:
        """A value that differs after every move."""
        return stamp(self._current)

    def move(
        self, version: int | None, action: Action, *, by: str, why: str, owner: str | None = None, served: int = 0
    ) -> Move:
        """Point to another version or to none: first the pointer with its record, then the ledger.

        `owner` owns the version. The new generation is above the last one and above `served`. Raises RegistryDamaged.
        """
        # After a power cut the last record may be missing from the ledger; it is about to be overwritten.
        for line in self._unrecorded(read_lines(self._ledger)):
            self._append(line)
        before = self.last()
        generation = max(before.generation, served) + 1
        after = Move(version, generation, self._rollback_target(before, version))
        record = self._timestamped({"action": action, "version": version, "by": by, "why": why, "owner": owner})
        record |= {"generation": after.generation, "previous": after.previous}
        replace_file(self._current, json.dumps(record).encode(), self._permit)
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

    def _pointer(self) -> Move:
        """The move that `current.json` records; one of generation 0 without the file."""
        try:
            record = read_object(self._current)
        except RegistryDamaged as error:
            raise RegistryDamaged(f"{error.message}; {_remedy(self._last_recorded())}") from error
        move = _to_move(_NO_MOVE if record is None else record)
        if move is None:
            raise RegistryDamaged(f"{shown(self._current)} is no pointer of ours; {_remedy(self._last_recorded())}")
        return move

    def _last_move(self) -> dict[str, Any] | None:
        """The ledger's record of the highest generation. Damaged lines do not count, so that models go on serving."""
        lines = read_lines(self._ledger, skip_damaged=True)
        moves = [line for line in lines if _to_move(line) is not None]
        return max(moves, key=lambda line: int(line["generation"]), default=None)

    def _last_recorded(self) -> Move:
        return _to_move(self._last_move() or {}) or Move(None, 0, None)

    def _unrecorded(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The last move's record if the ledger lacks it, after a power cut or on a full disk."""
        try:
            record = read_object(self._current)
        except RegistryDamaged:  # then the ledger is all there is; `last` reports it
            return []
        if not record or not record.get("generation"):
            return []
        return [] if any(line.get("generation") == record["generation"] for line in lines) else [record]

    def _timestamped(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {"at": int(self._clock()), **entry}

    def _append(self, entry: dict[str, Any]) -> None:
        """Add a line, without half a line that a power cut may have left.

        It replaces the file: a process that lost the name's lock could not be kept from appending to it.
        """
        content = read_if_there(self._ledger) or b""
        lines = content[: content.rfind(b"\n") + 1]
        replace_file(self._ledger, lines + json.dumps(entry).encode() + b"\n", self._permit)


def _to_move(record: dict[str, Any]) -> Move | None:
    """The move in a record; None for another entry."""
    match record:
        case {"version": int() | None as version, "generation": int(generation), "previous": int() | None as previous}:
            return Move(version, generation, previous)
        case _:
            return None


def _remedy(recorded: Move) -> str:
    """What the ledger knows, and what to do."""
    known = "no version in service" if recorded.version is None else f"version {recorded.version} in service"
    return f"the ledger has {known}, generation {recorded.generation}: restore the file, or promote a version"
