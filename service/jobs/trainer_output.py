"""What a training process says on its standard output: one JSON object a line, taken with caution."""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from service.jobs.records import Checkpoint, Event

Phase = Literal["validating_files", "running"]
Message = Event | Checkpoint | Phase

_LONGEST_LINE = 2**20
_LONGEST_MESSAGE = 2000
_LEVELS = ("info", "warn", "error")


class TrainerOutput:
    """Reads a stream in a thread of its own, so that a process that talks much never waits for the database."""

    def __init__(self, stream: IO[bytes], home: Path) -> None:
        self._stream = stream
        self._home = home
        self._said: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="read-trainer", daemon=True)
        self._thread.start()

    def take(self) -> Iterator[Message]:
        """What was said since."""
        while not self._said.empty():
            yield self._said.get()

    def finish(self, timeout_s: float) -> None:
        """Wait for the last line."""
        self._thread.join(timeout_s)

    def _read(self) -> None:
        while line := self._stream.readline(_LONGEST_LINE):
            said = parse(line, self._home)
            if said is not None:
                self._said.put(said)


def parse(line: bytes, home: Path) -> Message | None:
    """A line as what it means; what means nothing becomes a warning, so that it is seen. None for an empty line."""
    if not line.strip():
        return None
    try:
        read = json.loads(line, parse_constant=lambda _: None)
        return _meaning(read, home)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Event("warn", clean(f"the training process said: {line.decode(errors='replace').strip()}"))


def clean(text: str) -> str:
    """A text that every database takes, of a length that a reader does."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:_LONGEST_MESSAGE]


def finite(value: Any) -> Any:
    """JSON without NaN and infinities, which PostgreSQL does not take: null in their place. Texts are cleaned."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def _meaning(read: dict[str, Any], home: Path) -> Message:
    kind = read["type"]
    if kind == "phase" and read["phase"] in ("validating_files", "running"):
        phase: Phase = read["phase"]
        return phase
    if kind == "message" and read["level"] in _LEVELS:
        return Event(read["level"], clean(str(read["message"])))
    if kind == "metrics":
        data = finite(dict(read["data"]))
        return Event("info", _summary(data), "metrics", data)
    if kind == "checkpoint":
        path = Path(read["path"]).absolute().relative_to(home.absolute())
        return Checkpoint(int(read["step"]), str(path), finite(dict(read.get("metrics") or {})))
    raise ValueError(kind)


def _summary(data: dict[str, Any]) -> str:
    step, total, loss = data.get("step"), data.get("total_steps"), data.get("loss")
    shown = f"{loss:.4f}" if isinstance(loss, float) else loss
    return clean(f"Step {step}/{total}" if loss is None else f"Step {step}/{total}: training loss={shown}")
