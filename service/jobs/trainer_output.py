"""The standard output of a training process: one JSON object a line, parsed with caution."""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from service.jobs.records import Checkpoint, JobEvent

Phase = Literal["validating_files", "running"]
Message = JobEvent | Checkpoint | Phase

_LONGEST_LINE = 2**20
_LONGEST_MESSAGE = 2000
_LEVELS = ("info", "warn", "error")


class TrainerOutput:
    """Reads a stream in a thread of its own, so that the process never waits for the database."""

    def __init__(self, stream: IO[bytes], home: Path) -> None:
        self._stream = stream
        self._home = home
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="read-trainer", daemon=True)
        self._thread.start()

    def take(self) -> Iterator[Message]:
        """The messages since the last call."""
        while not self._messages.empty():
            yield self._messages.get()

    def finish(self, timeout_s: float) -> None:
        """Wait for the last line."""
        self._thread.join(timeout_s)

    def _read(self) -> None:
        while line := self._stream.readline(_LONGEST_LINE):
            message = parse(line, self._home)
            if message is not None:
                self._messages.put(message)


def parse(line: bytes, home: Path) -> Message | None:
    """Parse a line; one without meaning becomes a warning that shows it. None for an empty line."""
    if not line.strip():
        return None
    try:
        return _to_message(json.loads(line, parse_constant=lambda _: None), home)
    except (ValueError, KeyError, TypeError, AttributeError):
        return JobEvent("warn", storable_text(f"the training process said: {line.decode(errors='replace').strip()}"))


def storable_text(text: str) -> str:
    """Replace what a database refuses, and cut the text at 2,000 characters."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:_LONGEST_MESSAGE]


def storable_json(value: Any) -> Any:
    """JSON with null in place of NaN and infinities, which PostgreSQL refuses, and with clean texts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {storable_text(str(key)): storable_json(one) for key, one in value.items()}
    return [storable_json(one) for one in value] if isinstance(value, list | tuple) else value


def _to_message(content: dict[str, Any], home: Path) -> Message:
    kind = content["type"]
    if kind == "phase" and content["phase"] in ("validating_files", "running"):
        phase: Phase = content["phase"]
        return phase
    if kind == "message" and content["level"] in _LEVELS:
        return JobEvent(content["level"], storable_text(str(content["message"])))
    if kind == "metrics":
        data = storable_json(dict(content["data"]))
        return JobEvent("info", _summarize(data), "metrics", data)
    if kind == "checkpoint":
        path = Path(content["path"]).absolute().relative_to(home.absolute())
        return Checkpoint(int(content["step"]), str(path), storable_json(dict(content.get("metrics") or {})))
    raise ValueError(kind)


def _summarize(data: dict[str, Any]) -> str:
    step, total, loss = data.get("step"), data.get("total_steps"), data.get("loss")
    shown = f"{loss:.4f}" if isinstance(loss, float) else loss
    return storable_text(f"Step {step}/{total}" if loss is None else f"Step {step}/{total}: training loss={shown}")
