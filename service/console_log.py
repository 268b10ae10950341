"""Short coloured log lines for a person at a terminal."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import datetime
from typing import TextIO

from service.printable import printable

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
# Back to the first column, and erase: a progress bar that is there is drawn again on the next line.
_CLEAR_LINE = "\r\x1b[K"
_LEVELS = {"DEBUG": DIM, "INFO": CYAN, "WARNING": YELLOW, "ERROR": RED, "CRITICAL": RED}
_LONGEST_VALUE = 60
# The fields of every record; all others came with `extra`.
BUILT_IN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class ConsoleFormatter(logging.Formatter):
    """Formats time, level and message; of a request method, path, status, time, model and tokens.

    `always` is in every line. `bars`: a progress bar may be on the line, which is erased first. No control character of
    a message reaches the terminal.
    """

    def __init__(self, always: Mapping[str, object] | None = None, *, colours: bool, bars: bool = False) -> None:
        super().__init__()
        self._always = dict(always or {})
        self._colours, self._bars = colours, bars or colours

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line, and the traceback of an exception below it."""
        facts = {name: value for name, value in record.__dict__.items() if name not in BUILT_IN}
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = record.levelname
        head = f"{self._paint(time, DIM)} {self._paint(f'{level.lower():8}', _LEVELS.get(level, BOLD))}"
        what = self._request(facts) if "route" in facts else self._message(record, facts)
        trace = self.formatException(record.exc_info).splitlines() if record.exc_info else []
        lines = "\n  ".join([f"{head} {what}", *map(printable, trace)])
        return _CLEAR_LINE + lines if self._bars else lines

    def _request(self, facts: Mapping[str, object]) -> str:
        status, seconds, outcome = int(str(facts["status"])), float(str(facts["seconds"])), str(facts["outcome"])
        colour = RED if status >= 500 else GREEN if outcome == "ok" else YELLOW
        shown = str(status) if outcome == "ok" else f"{status} {outcome}"
        about = [facts.get("model"), f"{facts['tokens']} tokens" if "tokens" in facts else None]
        about += [f"{name}={value}" for name, value in self._always.items()]
        line = f"{printable(str(facts['method']))} {printable(str(facts.get('path', facts['route'])))}"
        details = self._paint("  ".join(str(part) for part in about if part), DIM)
        return f"{line}  {self._paint(shown, colour)}  {seconds * 1000:.1f} ms  {details}".rstrip()

    def _message(self, record: logging.LogRecord, facts: dict[str, object]) -> str:
        longest = _LONGEST_VALUE if record.levelno < logging.WARNING else None
        shown = [f"{name}={_cut(str(value), longest)}" for name, value in _flat(facts | self._always).items()]
        return f"{printable(record.getMessage())}  {self._paint(' '.join(shown), DIM)}".rstrip()

    def _paint(self, text: str, colour: str) -> str:
        return paint(text, colour) if self._colours and text else printable(text)


def takes_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal of a person who has not set `NO_COLOR` (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str) -> str:
    """The text, printable, in a colour of ANSI terminals."""
    return f"\x1b[{colour}m{printable(text)}\x1b[0m"


def _cut(text: str, longest: int | None) -> str:
    return text if longest is None or len(text) <= longest else f"{text[:longest]}…"


def _flat(facts: Mapping[str, object]) -> dict[str, object]:
    """The facts, with the content of a mapping in its place."""
    found: dict[str, object] = {}
    for name, value in facts.items():
        found |= value if isinstance(value, dict) else {name: value}
    return found
