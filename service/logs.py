"""Logs on standard error, for a program (JSON) or a person; never with the content of requests."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

import orjson

from service.console_log import BUILT_IN, ConsoleFormatter, takes_colours
from service.printable import printable

# The logger of a line for each request.
REQUESTS = "sonde.requests"
# Seconds for which these lines gather before they are written.
_GATHER_S = 0.05

LogFormat = Literal["auto", "console", "json"]


class JsonFormatter(logging.Formatter):
    """Formats time, level, logger, message and `extra`; `always` is in every line."""

    def __init__(self, always: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self._always = dict(always or {})

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line of JSON, without a control character."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
        }
        line.update({name: value for name, value in record.__dict__.items() if name not in BUILT_IN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            text = orjson.dumps(line, default=str).decode()
            return text if text.isascii() and text.isprintable() else printable(text)
        except TypeError:  # half a surrogate pair, or a number beyond 64 bits
            return json.dumps(line, default=str, skipkeys=True)


class BatchingHandler(logging.StreamHandler[TextIO]):
    """Gathers the lines of requests, and has a thread write them: a write for each would hold up the event loop.

    All other lines are written at once, after those before them. `close`, which `logging.shutdown` calls, writes the
    rest.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: deque[logging.LogRecord] = deque()
        self._has_lines = threading.Event()
        self._writing = threading.RLock()
        self._writer: threading.Thread | None = None
        self._closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record of a request for the next batch; write any other, and what is wrong, at once."""
        self._waiting.append(record)
        if record.name != REQUESTS or record.levelno > logging.INFO or self._closed:
            self.flush()
        elif not self._has_lines.is_set():
            self._has_lines.set()
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_batches, name="log-writer", daemon=True)
                self._writer.start()

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            lines = []
            while self._waiting:
                record = self._waiting.popleft()
                try:
                    lines.append(self.format(record) + self.terminator)
                except Exception:  # as logging does: it says on standard error what cannot be written
                    self.handleError(record)
            try:
                self.stream.write("".join(lines))
                self.stream.flush()  # without the handler's lock, which `close` holds
            except (OSError, ValueError):  # a full disk or a closed pipe, which must not end a request
                self.handleError(logging.makeLogRecord({"msg": "lines of the log cannot be written"}))

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._closed = True
        self._has_lines.set()
        if self._writer is not None:
            self._writer.join()
        self.flush()
        super().close()

    def _write_batches(self) -> None:
        while not self._closed:
            self._has_lines.wait()
            time.sleep(0 if self._closed else _GATHER_S)
            self._has_lines.clear()
            self.flush()


def hide_progress_bars() -> None:
    """Keep huggingface_hub and transformers, which are not imported yet, from drawing progress bars."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def configure(
    level: str, always: Mapping[str, object] | None = None, *, form: LogFormat = "auto", access: bool = True
) -> None:
    """Send all logs, uvicorn's too, to standard error, with the fields of `always`.

    `auto` is `console` on a terminal, and `json` elsewhere. `access` says whether requests have lines. Libraries show
    progress bars on a terminal alone, and not where several server processes would draw over each other.
    """
    terminal = sys.stderr.isatty()
    console = form == "console" or (form == "auto" and terminal)
    if not console or not terminal or always:
        hide_progress_bars()
    handler = BatchingHandler(sys.stderr)
    handler.setFormatter(
        ConsoleFormatter(always, colours=takes_colours(sys.stderr), bars=terminal) if console else JsonFormatter(always)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger(REQUESTS).setLevel("NOTSET" if access else "WARNING")
    # Sonde's own line per request replaces uvicorn's; libraries would log each file that they open.
    for name, least in {
        "uvicorn.access": "ERROR",
        "uvicorn.error": "WARNING",
        "httpx": "WARNING",
        "sentence_transformers": "WARNING",
    }.items():
        logging.getLogger(name).setLevel(least)
