"""What happened to one name: which version serves now, and all that led there."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import RegistryError
from models.filesystem import replace_file, sync_directory
from models.registry.locked_files import content_of, read_lines, read_object

log = logging.getLogger(__name__)

Action = Literal["promote", "rollback", "withdraw"]


@dataclass(frozen=True, slots=True)
class Move:
    """Which version serves since the last move, or None; which move it was, from 1 on; and which version a rollback
    leads to.
    """

    version: int | None
    generation: int
    previous: int | None


class History:
    """The pointer of a name (`current.json`, with the record of its last move) and its ledger (`ledger.jsonl`).

    Whoever writes has to be alone with the name.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._current = directory / "current.json"
        self._ledger = directory / "ledger.jsonl"
        self._clock = clock

    def last(self) -> Move:
        """The last move; of generation 0 where there was none. Raises RegistryError."""
        record = self._record()
        return (
            Move(None, 0, None) if record is None else Move(record["version"], record["generation"], record["previous"])
        )

    def ledger(self) -> list[dict[str, Any]]:
        """All that was written down, oldest first."""
        lines = read_lines(self._ledger)
        return lines + self._unrecorded(lines)

    def stamp(self) -> bytes:
        """A value that differs after every move."""
        return content_of(self._current)

    def move(self, version: int | None, action: Action, *, by: str, why: str) -> Move:
        """Point to another version, or to none: pointer first, with its record in it, ledger second."""
        # What a power cut kept out of the ledger would be lost with the record that is overwritten now.
        for line in self._unrecorded(read_lines(self._ledger)):
            self._append(line)
        before = self.last()
        after = Move(version, before.generation + 1, self._way_back(before, version))
        record = self._stamped({"action": action, "version": version, "by": by, "why": why})
        record |= {"generation": after.generation, "previous": after.previous}
        replace_file(self._current, json.dumps(record).encode())
        try:
            self._append(record)
        # a full disk: the move has happened, its record is in the pointer, and the next move writes it down
        except OSError as error:
            log.warning("the ledger is a line behind: %s", error)
        return after

    def log(self, action: Literal["publish", "delete"], version: int, by: str) -> None:
        """Write down what moved no pointer."""
        self._append(self._stamped({"action": action, "version": version, "by": by, "why": ""}))

    def _way_back(self, before: Move, version: int | None) -> int | None:
        """Which version served before `version` will: where that is `version` itself, withdrawn since, the one
        before it.
        """
        last = before.previous if before.version is None else before.version
        if last != version:
            return last
        earlier = (line for line in reversed(self.ledger()) if line.get("version") == version)
        return next((line["previous"] for line in earlier if line.get("previous", version) != version), None)

    def _record(self) -> dict[str, Any] | None:
        """What the last move wrote; None when there was none."""
        read = read_object(self._current)
        if read is not None and not {"version", "generation", "previous"} <= read.keys():
            raise RegistryError(f"{self._current} is no pointer of ours")
        return read

    def _unrecorded(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The last move, where a power cut came between pointer and ledger."""
        record = self._record()
        if record is None or any(line.get("generation") == record["generation"] for line in lines):
            return []
        return [record]

    def _stamped(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {"at": int(self._clock()), **entry}

    def _append(self, entry: dict[str, Any]) -> None:
        """One more line; half a line, which a power cut may have left, is cut off before."""
        with self._ledger.open("ab+") as stream:
            stream.seek(0)
            content = stream.read()
            stream.truncate(content.rfind(b"\n") + 1)
            stream.write(json.dumps(entry).encode() + b"\n")
        sync_directory(self._ledger)
